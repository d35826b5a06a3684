//go:build lab

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
	"github.com/updatectl/updatectl/integration/lab/fault"
)

// turns limits how many tests run side by side, for two processors: a machine takes one of them; a container mostly
// waits, for deadlines and for services.
var turns = map[lab.Kind]chan struct{}{lab.QEMU: make(chan struct{}, 1), lab.Nspawn: make(chan struct{}, 2)}

// beside makes a test run in parallel with others, when it is its turn. Tests that do not call it run alone, before
// all others: they measure what a busy machine changes.
func beside(t *testing.T, kind lab.Kind) {
	t.Helper()
	t.Parallel()
	start := time.Now()
	turns[kind] <- struct{}{}
	t.Cleanup(func() { <-turns[kind] })
	t.Logf("its turn came after %v", time.Since(start).Round(time.Second))
}

// rarely is what only tests of long suites need besides; their files add to it.
var rarely []lab.Thing

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == fault.Name { // this program, copied into a host
		os.Exit(fault.Main(os.Args))
	}
	os.Exit(lab.Enter(lab.Prepare(slices.Concat(lab.Everything, rarely)...), m.Run))
}
