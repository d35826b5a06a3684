package origin

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestFind: what is there is carried over, what is missing is made, and what the new root mounts itself is left to it.
// A root that ran before does without what it cannot have, but not without data that were there a moment ago.
func TestFind(t *testing.T) {
	root := testtree.Make(t, "data/file", "roots/1/cert/key", "file", "dangling -> nowhere", "etc -> /etc", "loop -> loop")
	at := func(name string) string { return filepath.Join(root, name) }
	for name, c := range map[string]struct {
		path    string
		finder  Finder
		named   bool   // by a mount unit of the new root
		want    Origin // of a new root
		refused bool   // for a new root
		back    Origin // of a root that ran before
		fails   bool   // for both
	}{
		"there":                {path: "data", want: Origin{Dir: at("data")}, back: Origin{Dir: at("data")}},
		"missing":              {path: "new/dir", want: Origin{Dir: at("new/dir"), Missing: true}},
		"missing, in fstab":    {path: "new", finder: Finder{Fstab: []string{at("new")}}},
		"unmounted":            {path: "data", named: true},
		"below an unmounted":   {path: "disk/data", finder: Finder{Fstab: []string{at("disk")}}, refused: true},
		"a file":               {path: "file", refused: true},
		"a dangling link":      {path: "dangling", refused: true},
		"in /etc":              {path: "etc", refused: true, back: Origin{Dir: at("etc")}}, // as it was
		"a loop":               {path: "loop", fails: true},
		"in a root":            {path: "roots/1/cert", finder: Finder{Collected: []string{at("roots")}}, refused: true},
		"missing in a root":    {path: "roots/1/new", finder: Finder{Collected: []string{at("roots")}}, refused: true},
		"gone since, in fstab": {path: "new", finder: Finder{Present: []string{at("new")}, Fstab: []string{at("new")}}},
	} {
		t.Run(name, func(t *testing.T) {
			p, f := at(c.path), c.finder
			f.IsNamed = func(p string) bool { return c.named || slices.Contains(f.Fstab, p) }
			got, err := f.Find(p)
			if (err != nil) != (c.refused || c.fails) || errors.Is(err, ErrState) != c.refused || got != c.want {
				t.Errorf("a new root: %+v, %v; want %+v", got, err, c.want)
			}
			f.Return = true
			if got, err = f.Find(p); (err != nil) != c.fails || errors.Is(err, ErrState) || got != c.back {
				t.Errorf("a root that ran before: %+v, %v; want %+v", got, err, c.back)
			}
		})
	}
	if _, err := os.Lstat(at("new")); err == nil {
		t.Error("something was made")
	}
}
