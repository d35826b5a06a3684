package record

import (
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// testStore returns the Store of a host in a temporary directory, with its state directory.
func testStore(t *testing.T) *Store {
	t.Helper()
	root := t.TempDir()
	testtree.File(t, root, StateDir+"/.keep", "")
	path := func(p string) string { return filepath.Join(root, p) }
	return &Store{Disk: durable.OS{}, Path: path, Log: zap.NewNop(), Now: time.Now}
}

// onTheWay returns the record of a host that is on its way between two roots, in its first attempt. It is a copy of
// hosttest.OnTheWay, which cannot be used here: hosttest imports this package.
func onTheWay(verb, from, target string, good ...string) *Record {
	return &Record{
		Phase: PhaseTrying, Good: good, Bad: map[string]Bad{},
		Attempts: map[string]int{target: 1}, Failed: map[string]Failed{},
		Switch: &Switch{Verb: verb, Expectation: level.Expectation{From: from, Target: target, BootID: "b"}},
	}
}
