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

// build makes the directory beside dst and renames it to dst when it is complete and on disk.
func (out *outcome) build(in Inputs, dst string) error {
	parent := filepath.Dir(dst)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	tmp := dst + ".new"
	if err := durable.RemoveAll(tmp); err != nil { // left by an interrupted merge
		return err
	}
	err := out.fill(in, tmp)
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

// fill creates all files in tmp. A directory is made before its content and gets its attributes after it.
func (out *outcome) fill(in Inputs, tmp string) error {
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
		from := in.Next
		if p.side == current {
			from = in.Current
		}
		if err := p.entry.Create(p.content, filepath.Join(from, cmp.Or(p.source, name)), full); err != nil {
			return err
		}
		if err := p.entry.Apply(full, refused); err != nil {
			return err
		}
	}
	for _, name := range slices.Backward(names) {
		if p := out.paths[name]; p.entry.Kind == listing.Dir {
			if err := p.entry.Apply(filepath.Join(tmp, name), refused); err != nil {
				return err
			}
		}
	}
	for attr := range refused {
		out.report.note(fmt.Sprintf("the file system of the new /etc does not support the attribute %s; left out", attr))
	}
	slices.Sort(out.report.Notes)
	return nil
}
