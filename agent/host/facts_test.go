package host_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// runs is a kernel on which a root runs.
type runs struct {
	machine.Kernel
	root string
}

func (r runs) Facts(context.Context) (facts.Facts, error) { return facts.Facts{Root: r.root}, nil }

// mounts is a systemd that has a mount unit which is not active, or none.
type mounts struct {
	machine.Systemd
	missing string
}

func (m mounts) Unmounted(_ context.Context, path string) (string, error) {
	if path != record.StateDir {
		return "", errors.New("asked about " + path)
	}
	return m.missing, nil
}

// TestUnmountedState: a host root whose state is not mounted is no new host. Any other has a record, or needs none.
func TestUnmountedState(t *testing.T) {
	for name, c := range map[string]struct {
		root, missing, record string
		elsewhere             bool
		fails                 bool
	}{
		"a new host":                    {root: switcher.HostRoot},
		"its state is not mounted":      {root: switcher.HostRoot, missing: "var.mount", fails: true},
		"it has a record all the same":  {root: switcher.HostRoot, missing: "var.mount", record: `{"good":["host"]}`},
		"an image root that lost its":   {root: "sha256-1", missing: "var.mount"},
		"another tree, not the machine": {root: switcher.HostRoot, missing: "var.mount", elsewhere: true},
	} {
		h := hosttest.New(t)
		h.Machine.Running, h.Machine.Superuser = !c.elsewhere, true
		h.Machine.Kernel, h.Machine.Systemd = runs{root: c.root}, mounts{missing: c.missing}
		if c.record != "" {
			testtree.File(t, h.Machine.Root, record.RecordFile, c.record)
		}
		_, _, err := h.Look(t.Context())
		if errors.Is(err, record.ErrUnmounted) != c.fails || (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
		if c.fails && !strings.Contains(err.Error(), c.missing) {
			t.Errorf("%s: the error does not name the unit: %v", name, err)
		}
	}
}
