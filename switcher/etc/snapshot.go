package etc

import (
	"bytes"
	"maps"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/etc/authorities"
	"github.com/updatectl/updatectl/switcher/etc/fields"
	"github.com/updatectl/updatectl/switcher/etc/fstab"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/merge3"
	"github.com/updatectl/updatectl/switcher/etc/needs"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// snapshot is one side of the merge: the tree, and the files that are merged by content.
type snapshot struct {
	listing.Directory
	tables table.Tables      // databases that are ordinary files, or mounted files
	text   map[string][]byte // their content, and that of fstab and of the interfaces of ifupdown
	units  map[string][]byte // the content of mount and swap units that is not that of their files
	shells []string          // lines of /etc/shells
	access accounts.Access   // who uses the host; of the host's side only
}

// readSnapshot reads one side from a directory, which may be given as /proc/self/fd/N. The error is an ErrTooLarge or
// one of the file system.
func readSnapshot(dir string) (snapshot, error) {
	s := snapshot{tables: table.Tables{}, text: map[string][]byte{}}
	var err error
	if s.Directory, err = listing.Read(dir); err != nil {
		return s, err
	}
	for _, file := range table.Files {
		content, err := listing.ReadText(dir, file, table.Max)
		if err != nil {
			return s, err
		}
		if content != nil {
			s.text[file], s.tables[file] = content, table.Parse(file, content)
		}
	}
	mounts, err := listing.ReadText(dir, "fstab", fstab.MaxSize)
	if err != nil {
		return s, err
	}
	if mounts != nil {
		s.text["fstab"] = mounts
	}
	for _, file := range []string{needs.Interfaces, authorities.Conf} {
		if s.text[file], err = listing.ReadText(dir, file, rootfs.MaxConfig); err != nil {
			return s, err
		}
	}
	shells, err := listing.ReadText(dir, "shells", fstab.MaxSize)
	for line := range bytes.Lines(shells) {
		if l := strings.TrimSpace(string(line)); strings.HasPrefix(l, "/") {
			s.shells = append(s.shells, l)
		}
	}
	s.access.Shells = s.shells
	return s, err
}

// setSum replaces the checksum that the tree has for a file.
func (s *snapshot) setSum(name string, e listing.Entry, sum string) {
	e.Sum = sum
	s.Tree = maps.Clone(s.Tree)
	s.Tree[name] = e
}

// replaceFstab replaces the fstab of one side by what change makes of it, with its notes.
func (s *snapshot) replaceFstab(change func(fstab []byte) ([]byte, []string)) {
	if text, ok := s.text["fstab"]; ok {
		var notes []string
		s.text["fstab"], notes = change(text)
		s.Notes = append(s.Notes, notes...)
	}
}

// readChangedTexts reads what may be joined by lines: the ordinary files whose content all sides have differently. A
// file that changes at this moment is left out, and so is a conflict.
func readChangedTexts(in Inputs, old, cur, next *snapshot) {
	for name, c := range cur.Tree {
		o, x := old.Tree[name], next.Tree[name]
		if o.Kind != listing.File || c.Kind != listing.File || x.Kind != listing.File || !fields.MergesByLine(name) ||
			c.Sum == o.Sum || o.Sum == x.Sum || c.Sum == x.Sum {
			continue
		}
		texts := map[*snapshot][]byte{}
		for _, side := range []struct {
			s    *snapshot
			from string
		}{{old, in.Old}, {cur, in.Current}, {next, in.Next}} {
			text, err := listing.ReadStart(side.from, name, merge3.MaxText+1)
			if err == nil && listing.Sum(text) == side.s.Tree[name].Sum && merge3.IsText(text) {
				texts[side.s] = text
			}
		}
		if len(texts) == 3 {
			for s, text := range texts {
				s.text[name] = text
			}
		}
	}
}
