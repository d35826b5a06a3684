// Package etc makes the /etc of the next root. It promises that no local change is lost without being named in the
// report.
//
// It is a three-way merge of the old image's /etc, the running /etc and the new image's /etc. What the host did not
// change comes from the new image, and what it changed stays. Where both changed a path, its fields are merged apart,
// and a text by lines. Where both changed the same, the host's version stays, a [Conflict] is listed, and the image's
// version is put beside the file. A host that does not run an image yet has no old image to compare with: a list of
// paths is adopted ([adopted.Default]), everything else comes from the image and is counted in [Report.NotAdopted].
//
// Some files have rules of their own:
//
//   - passwd, group, shadow, gshadow, subuid and subgid are merged by entry and field. The host's numbers win, because
//     the files under /var have them: a name keeps its number, a new name gets one that no other name ever had here
//     ([Inputs.Ledger]), and the image's files in /etc get the host's numbers. Lines that cannot be parsed are kept
//     verbatim. Package accounts decides this.
//   - fstab never mounts over the image ([fstab.Filter]), and needs no file on the host root
//     ([fstab.Sources]).
//   - machine-id, SSH host keys and the like always stay the host's, even if the image brings some.
//   - os-release, ld.so.cache and .updated describe the image and always come from it.
//
// [Plan] decides and writes nothing. [Merge] makes the same decision and builds the directory, which gets its final
// name only when it is complete.
package etc

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/access"
	"github.com/updatectl/updatectl/switcher/etc/accounts"
	"github.com/updatectl/updatectl/switcher/etc/accounts/numbers"
	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/etc/adopted"
	"github.com/updatectl/updatectl/switcher/etc/authorities"
	"github.com/updatectl/updatectl/switcher/etc/derived"
	"github.com/updatectl/updatectl/switcher/etc/fields"
	"github.com/updatectl/updatectl/switcher/etc/fstab"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/paths"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
	"github.com/updatectl/updatectl/switcher/etc/sshd"
	"github.com/updatectl/updatectl/switcher/etc/users"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Inputs are the directories that a merge reads, which may be given as /proc/self/fd/N, and its settings.
type Inputs struct {
	Old     string // pristine /etc of the old image; "" on a host that runs no image
	Current string // running /etc
	Next    string // pristine /etc of the new image

	// Host is the tree of the host that Current is the /etc of. On a host without an old image, it says who uses the host:
	// who stays is decided by that, too. With "", only Current and its user databases say it.
	Host string

	// State is the tree in which the kept state lies: the running one, even if Current is the /etc of another root. With
	// "", nothing is known about it.
	State string

	// Adopt lists what a host without an old image keeps: paths and globs relative to /etc; a directory includes
	// everything below it. nil means [adopted.Default].
	Adopt []string

	// Sources says where the next root finds what the fstab of the host takes from the host root.
	Sources fstab.Sources

	// Derived lists the files that programs make from others; the host's own list is read from Current.
	Derived derived.List

	// Ledger is the file with the owner of every uid and gid ever assigned here. Merge updates it, Plan only reads it. It
	// must outlive every root. With "", only the numbers in Current and Old are known.
	Ledger string

	// Owners are the owners of the new image's files, of which [Report.Owners] is about.
	Owners numbers.FileOwners
}

// Plan returns what [Merge] would do. The errors are adopted.ErrPattern, ErrTooLarge, ErrNoFreeID, or those of the file
// system.
func Plan(in Inputs) (Report, error) {
	out, err := readAndCorrect(in)
	if err != nil {
		return Report{}, fmt.Errorf("cannot plan the new /etc: %w", err)
	}
	return out.report, nil
}

// maxAttempts is how often a merge is tried when a file of the running /etc is changed between being listed and being
// copied.
const maxAttempts = 3

// Merge builds the /etc of the next root at dst, durably, and replaces what was there, unless that is the same already:
// then an earlier call made it. After an error, dst is unchanged. The errors are those of [Plan].
func Merge(in Inputs, dst string) (Report, error) {
	for attempt := 1; ; attempt++ {
		rep, err := merge(in, dst, attempt == maxAttempts)
		if err == nil {
			return rep, nil
		}
		if attempt == maxAttempts || !errors.Is(err, fs.ErrNotExist) &&
			!errors.Is(err, listing.ErrChanged) {
			return Report{}, fmt.Errorf("cannot make the new /etc: %w", err)
		}
	}
}

func merge(in Inputs, dst string, last bool) (Report, error) {
	for _, dir := range []string{in.Old, in.Current, in.Next} {
		if sameDir(dir, dst) {
			return Report{}, fmt.Errorf("%s is an input: %w", dst, fs.ErrInvalid)
		}
	}
	out, err := readAndCorrect(in)
	if err != nil {
		return Report{}, err
	}
	if in.Ledger != "" {
		// Before the directory, so that no number is in use that is not recorded.
		if err := users.WriteLedger(in.Ledger, out.ledger); err != nil {
			return Report{}, err
		}
	}
	if out.isAt(dst) {
		return out.report, nil
	}
	if err := out.build(in, dst, last); err != nil {
		return Report{}, err
	}
	return out.report, nil
}

func sameDir(a, b string) bool {
	ai, errA := os.Stat(a)
	bi, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(ai, bi)
}

// read reads the three sides and decides.
func read(in Inputs) (*outcome, error) {
	patterns := in.Adopt
	if patterns == nil {
		patterns = adopted.Default
	}
	adopt, err := adopted.Parse(patterns)
	if err != nil {
		return nil, err
	}
	numbers, err := users.ReadLedger(in.Ledger)
	if err != nil {
		return nil, err
	}
	cur, err := readSnapshot(in.Current)
	if err != nil {
		return nil, err
	}
	next, err := readSnapshot(in.Next)
	if err != nil {
		return nil, err
	}
	if cur.access.People, err = access.People(in.Current); err != nil {
		return nil, err
	}
	cur.Notes = append(cur.Notes, fstab.AutomountNotes(cur.text["fstab"], in.Sources.Kept)...)
	made, err := readDerivation(in, &cur)
	if err != nil {
		return nil, err
	}
	next.replaceFstab(in.Sources.DropSwapFiles)
	if in.Old == "" {
		if in.Host != "" {
			var notes []string
			cur.units, notes = in.Sources.MoveUnits(rootfs.Dir(in.Host), cur.Tree, cur.text["fstab"])
			cur.Notes = append(cur.Notes, notes...)
		}
		cur.replaceFstab(in.Sources.Move)
		if in.Host != "" {
			people, shells := cur.access.People, cur.access.Shells
			cur.access = access.Read(in.Host, cur.tables)
			cur.access.People, cur.access.Shells = people, shells
			adopt = append(slices.Clone(adopt), adopted.Alternatives(rootfs.Dir(in.Host))...)
			if adopt.Has("ssh/sshd_config") {
				adopt = append(adopt, sshd.Read(rootfs.Dir(in.Host)).Adopted()...)
			}
		}
		return resolve(nil, cur, next, adopt, numbers, made)
	}
	old, err := readSnapshot(in.Old)
	if err != nil {
		return nil, err
	}
	old.replaceFstab(in.Sources.DropSwapFiles)
	cur.replaceFstab(in.Sources.DropSwapFiles)
	readChangedTexts(in, &old, &cur, &next)
	return resolve(&old, cur, next, nil, numbers, made)
}

// side is where a path of the result comes from.
type side byte

const (
	nowhere side = iota
	current
	image
)

// resultPath is one path of the result.
type resultPath struct {
	side    side
	entry   listing.Entry
	content []byte // of a file that is merged by content; nil when it is copied from its side
	source  string // the path that it is copied from; "" when it is its own
}

// outcome is the whole decision.
type outcome struct {
	paths  map[string]resultPath
	ledger accounts.Ledger
	report Report

	image, merged table.Tables // the user databases of the new image, and of the result
}

// resolve is the pure core: three sides in, the next /etc out. On a host that runs no image, old is nil, and adopt
// lists what counts as a local change.
func resolve(old *snapshot, cur, next snapshot, adopt paths.List, numbers accounts.Ledger, made derivation) (
	*outcome, error) {
	out := &outcome{paths: map[string]resultPath{}, ledger: numbers.Clone()}
	rep := &out.report
	adopting := old == nil
	base := baseOf(old, &cur, &next, adopt, rep)
	// Numbers first: everything after compares the host's.
	var remarks accounts.Remarks
	users, err := accounts.Sides{
		Old: base.tables, Current: cur.tables, Next: next.tables, Adopting: adopting, People: cur.access.People,
	}.Renumber(numbers, &remarks)
	if err != nil {
		return nil, err
	}
	o, c, x := base.Tree.MapOwners(users.OldIDs.Map), maps.Clone(cur.Tree), next.Tree.MapOwners(users.NextIDs.Map)
	for _, m := range cur.Mounts {
		rep.note(m + ": something is mounted here; what it hides counts as unchanged")
	}
	listing.HideMounted(cur.Mounts, o, c)
	cur.HideLeftOut(o, c)
	if !adopting {
		leaveOutNetwork(o, c, x, rep)
	}
	besides := takeBesides(c)
	made.hideDerived(o, c, x, rep)
	joins := fields.All(o, c, x, base.text, cur.text, next.text)
	sides := decide(o, c, x, joins, adopting, rep)
	merged := users.Merge(keptOwners(sides, o, c), &remarks)
	out.image, out.merged = next.tables, merged
	out.place(sides, c, x, joins)
	for _, file := range table.Files {
		out.placeTable(file, merged[file], cur, next, c, x, adopting)
	}
	out.placeFstab(cur, next, adopting && adopt.Has("fstab"))
	out.placeUnits(cur)
	summarize(rep, out.paths, o, c, x, adopting)
	out.placeBesides(besides, x)
	out.placeDerived(made, x, base.text[authorities.Conf], cur.text[authorities.Conf], next.text[authorities.Conf])
	out.placeMergedList(made.merged, x)
	if made.newInstance {
		out.disableCloud(o, x)
	}
	accounts.NoteShells(&remarks, merged, next.tables, cur.access.People, next.shells)
	rep.add(remarks)
	for _, s := range []snapshot{cur, next} {
		rep.Notes = append(rep.Notes, s.Notes...)
	}
	out.ledger.Record(cur.tables)
	out.ledger.Record(merged)
	rep.finish()
	return out, nil
}

// place puts into the result what each path has by the side that it comes from.
func (out *outcome) place(sides map[string]side, c, x listing.Tree, joins map[string]fields.Joined) {
	for name, s := range sides {
		switch s {
		case current:
			out.paths[name] = resultPath{side: s, entry: c[name]}
			if j, ok := joins[name]; ok {
				if j.FromImage {
					s = image
				}
				out.paths[name] = resultPath{side: s, entry: j.Entry, content: j.Content}
			}
		case image:
			out.paths[name] = resultPath{side: s, entry: x[name]}
		}
	}
}

// baseOf returns what the other two sides are compared with: the old image's /etc, or on a host that runs no image one
// that is invented for it. It prepares all three.
func baseOf(old, cur, next *snapshot, adopt paths.List, rep *Report) snapshot {
	if old == nil {
		prepare([]*snapshot{cur, next}, rep)
		return hostBase(*cur, *next, adopt)
	}
	base := *old
	prepare([]*snapshot{&base, cur, next}, rep)
	return base
}

// prepare makes the sides comparable where content is merged: of a user database, the tree compares only the metadata;
// of fstab, what is left after filtering. A database that is not an ordinary file on every side, but for example a link
// into /usr, is taken as a whole.
func prepare(sides []*snapshot, rep *Report) {
	for _, file := range table.Files {
		odd := slices.ContainsFunc(sides, func(s *snapshot) bool {
			e, ok := s.Tree[file]
			return ok && e.Kind != listing.File
		})
		if odd {
			rep.note(file + ": not an ordinary file everywhere; merged as a whole, not by entry")
		}
		for _, s := range sides {
			if odd {
				s.tables = maps.Clone(s.tables)
				delete(s.tables, file)
			} else if e, ok := s.Tree[file]; ok {
				s.setSum(file, e, "")
			}
		}
	}
	for _, s := range sides {
		if e, ok := s.Tree["fstab"]; ok && e.Kind == listing.File {
			s.setSum("fstab", e, listing.Sum(fstab.Filter(s.text["fstab"])))
		}
	}
}

// keptOwners returns the numbers that own the local files that are kept.
func keptOwners(sides map[string]side, old, cur listing.Tree) accounts.Owners {
	used := accounts.Owners{UIDs: map[uint32]bool{}, GIDs: map[uint32]bool{}}
	for name, s := range sides {
		if s == current && !listing.Same(cur[name], old[name], true, old.Has(name)) {
			used.UIDs[cur[name].UID] = true
			used.GIDs[cur[name].GID] = true
		}
	}
	return used
}

// placeTable puts a merged user database into the result.
func (out *outcome) placeTable(file string, t *table.Table, cur, next snapshot, curTree, nextTree listing.Tree,
	adopting bool) {
	if cur.tables[file] == nil && next.tables[file] == nil {
		return
	}
	if t == nil {
		delete(out.paths, file)
		return
	}
	p, ok := out.paths[file]
	if !ok {
		p = resultPath{side: current, entry: curTree[file]}
		if !curTree.Has(file) {
			p = resultPath{side: image, entry: nextTree[file]}
		}
		if p.entry.Kind == 0 { // mounted on the host, and not in the image
			p.entry = listing.Entry{Kind: listing.File, Mode: 0o600}
		}
	}
	p.content = t.Bytes()
	switch {
	case next.tables[file] != nil && bytes.Equal(p.content, next.tables[file].Bytes()):
		p.content, p.entry.MTime = next.text[file], nextTree[file].MTime
	case cur.tables[file] != nil && bytes.Equal(p.content, cur.tables[file].Bytes()):
		p.content, p.entry.MTime = cur.text[file], curTree[file].MTime
	case nextTree[file].MTime.After(curTree[file].MTime):
		p.entry.MTime = nextTree[file].MTime
	default:
		p.entry.MTime = curTree[file].MTime
	}
	out.paths[file] = p
	if !bytes.Equal(p.content, next.text[file]) {
		out.report.Kept = append(out.report.Kept, file)
	}
	if !adopting && !bytes.Equal(p.content, cur.text[file]) {
		out.report.Taken = append(out.report.Taken, file)
	}
}

// placeFstab puts the filtered fstab into the result; with join, the lines of both sides.
func (out *outcome) placeFstab(cur, next snapshot, join bool) {
	p, ok := out.paths["fstab"]
	if !ok || p.entry.Kind != listing.File {
		return
	}
	text := next.text["fstab"]
	if p.side == current {
		text = cur.text["fstab"]
	}
	p.content = fstab.Filter(text)
	if !bytes.Equal(text, p.content) {
		out.report.note("fstab: lines that mount over the image are commented out")
	}
	if join && p.side == current {
		p.content = fstab.Join(p.content, fstab.Filter(next.text["fstab"]))
	}
	out.paths["fstab"] = p
}

// summarize lists what was decided. A directory that is added or removed as a whole stands for everything below it.
func summarize(rep *Report, result map[string]resultPath, old, cur, next listing.Tree, adopting bool) {
	whole := map[*[]string]string{}
	list := func(to *[]string, name string, asWhole bool) {
		if above, ok := whole[to]; ok && paths.IsUnder(name, above) {
			return
		}
		if asWhole {
			whole[to] = name
			name += "/"
		}
		*to = append(*to, name)
	}
	for _, name := range slices.SortedFunc(maps.Keys(listing.EveryPath(old, cur, next)), byPath) {
		if name == "." || slices.Contains(table.Files, name) {
			continue
		}
		_, inO := old[name]
		c, inC := cur[name]
		x, inX := next[name]
		p := result[name]
		differs := !listing.Same(c, x, inC, inX)
		switch {
		case inC && inX && p.side != nowhere && !wholeSide(p.side, p.entry, c, x) && !adopting:
			list(&rep.Merged, name, false)
		case p.side == current && !inX && !inO:
			list(&rep.Added, name, c.Kind == listing.Dir)
		case p.side == current && differs && (c.Kind != listing.Dir || inX):
			list(&rep.Kept, name, false)
		case p.side == nowhere && !inC && inO && inX:
			list(&rep.Removed, name, x.Kind == listing.Dir)
		case p.side != current && differs && adopting:
			if inC && !reserved.Backups.Has(name) && !reserved.OfImage.Has(name) {
				list(&rep.NotAdopted.Samples, name, c.Kind == listing.Dir && !inX)
			}
		case p.side == image && differs, p.side == nowhere && inC:
			dir := p.side == image && x.Kind == listing.Dir && !inC || p.side == nowhere && c.Kind == listing.Dir
			list(&rep.Taken, name, dir)
		}
	}
}

// wholeSide reports whether a result with the content of one side has everything else from there, too.
func wholeSide(s side, e, c, x listing.Entry) bool {
	return s == current && listing.Same(e, c, true, true) || s == image && listing.Same(e, x, true, true)
}

// byPath compares paths so that the content of a directory follows it directly.
func byPath(a, b string) int {
	return cmp.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
}

// placeUnits gives the changed unit files of the host to the result.
func (out *outcome) placeUnits(cur snapshot) {
	for name, p := range out.paths {
		if text, changed := cur.units[name]; changed && p.side == current {
			p.content = text
			out.paths[name] = p
		}
	}
}

// readAndCorrect is read, with how the files of the new image are shown.
func readAndCorrect(in Inputs) (*outcome, error) {
	out, err := read(in)
	if err != nil {
		return nil, err
	}
	out.report.Correction = numbers.Correct(out.image, out.merged, in.Owners)
	out.report.Owners = append(out.report.Owners, out.report.Correction.Shown...)
	return out, nil
}
