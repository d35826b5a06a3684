package etc

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/etc/listing"
)

// build makes the directory beside dst and renames it to dst when it is complete and on disk. Last is whether nothing
// is tried again, see [outcome.fill].
func (out *outcome) build(in Inputs, dst string, last bool) error {
	parent := filepath.Dir(dst)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	tmp := dst + ".new"
	if err := durable.RemoveAll(tmp); err != nil { // left by an interrupted merge
		return err
	}
	err := out.fill(in, tmp, last)
	if err == nil {
		err = durable.SyncFS(tmp) // one call instead of one per file
	}
	if err == nil {
		err = durable.OS{}.Exchange(tmp, dst)
	}
	if err != nil {
		return errors.Join(err, durable.RemoveAll(tmp))
	}
	return durable.SyncDir(parent)
}

// fill creates all files in tmp, which only root can look into until it is complete. A directory is made before its
// content and gets its attributes after it. What was changed since it was listed is an ErrChanged. If this is the last
// time, a file of root's is copied as it is now; what others than root can change is left out and noted, so that they
// cannot keep the host from an update.
func (out *outcome) fill(in Inputs, tmp string, last bool) error {
	sources := map[side]listing.Source{}
	for side, dir := range map[side]string{current: in.Current, image: in.Next} {
		source, err := listing.OpenSource(dir)
		if err != nil {
			return err
		}
		defer source.Close()
		sources[side] = source
	}
	names := slices.Sorted(maps.Keys(out.paths))
	names = append([]string{"."}, slices.DeleteFunc(names, func(n string) bool { return n == "." })...)
	refused := map[string]bool{}
	for _, name := range names {
		p, full := out.paths[name], filepath.Join(tmp, name)
		if p.entry.Kind == listing.Dir || name == "." {
			if err := os.Mkdir(full, 0o700); err != nil {
				return err
			}
			continue
		}
		if last && !p.entry.Foreign && p.entry.UID == 0 {
			p.entry.Sum = ""
		}
		err := p.entry.Make(p.content, sources[p.side], cmp.Or(p.source, name), full, refused)
		if errors.Is(err, listing.ErrChanged) && last && p.entry.OthersChange() {
			out.report.note(name + ": not carried over: it does not stay the same while it is copied")
			continue
		}
		if err != nil {
			return err
		}
	}
	if err := out.finishDirs(tmp, names, refused); err != nil {
		return err
	}
	for attr := range refused {
		out.report.note(fmt.Sprintf("the file system of the new /etc does not support the attribute %s; left out", attr))
	}
	slices.Sort(out.report.Notes)
	return nil
}

// finishDirs gives the directories their attributes, from the leaves up.
func (out *outcome) finishDirs(tmp string, names []string, refused map[string]bool) error {
	for _, name := range slices.Backward(names) {
		p := out.paths[name]
		if p.entry.Kind != listing.Dir {
			continue
		}
		dir, err := os.Open(filepath.Join(tmp, name))
		if err != nil {
			return err
		}
		err = p.entry.Apply(dir, refused)
		dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
