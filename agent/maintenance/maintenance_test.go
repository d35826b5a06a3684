package maintenance

import (
	"context"
	"errors"
	"testing"

	"github.com/updatectl/updatectl/agent/boot"
	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/volatile"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/hostroot"
)

// fakeHost is a host as far as maintenance looks at it.
type fakeHost struct {
	machine.Kernel
	machine.Systemd
	facts        facts.Facts
	shuttingDown bool
	from         string // where a program ran
}

func (h *fakeHost) Facts(context.Context) (facts.Facts, error) { return h.facts, nil }
func (h *fakeHost) ShuttingDown(context.Context) (bool, error) { return h.shuttingDown, nil }
func (h *fakeHost) Run(_ context.Context, from string, _ hostroot.Program) (int, error) {
	h.from = from
	return 7, nil
}

// TestRun: a program runs in the host root, wherever that is, and nothing switches meanwhile.
func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		facts   func(*facts.Facts)
		rec     *record.Record
		prepare func(*fakeHost)
		busy    bool
		from    string
		want    error
	}{
		"in an image":       {from: roots.HostMount},
		"on the host root":  {facts: func(f *facts.Facts) { f.Root = "host" }, from: "/"},
		"in a volatile one": {facts: func(f *facts.Facts) { f.Volatile = true }, want: volatile.ErrRuns},
		"in a trial":        {rec: hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1"), want: ErrSwitching},
		"while it shuts down": {
			prepare: func(h *fakeHost) { h.shuttingDown = true }, want: ErrSwitching,
		},
		"beside another command": {busy: true, want: record.ErrBusy},
	} {
		t.Run(name, func(t *testing.T) {
			h := hosttest.New(t)
			fake := &fakeHost{facts: hosttest.Kernel}
			fake.facts.Root = "v1"
			if c.facts != nil {
				c.facts(&fake.facts)
			}
			if c.prepare != nil {
				c.prepare(fake)
			}
			h.Machine.Kernel, h.Machine.Systemd, h.Machine.HostRoot = fake, fake, fake
			if c.rec != nil {
				if err := h.Records.Write(c.rec); err != nil {
					t.Fatal(err)
				}
			}
			if c.busy {
				unlock, err := h.Lock(t.Context(), "apply", false)
				if err != nil {
					t.Fatal(err)
				}
				defer unlock()
			}
			m := Maintenance{Host: h, Boot: boot.Boot{Host: h}}
			code, err := m.Run(t.Context(), hostroot.Program{Args: []string{"true"}})
			if !errors.Is(err, c.want) || fake.from != c.from || c.want == nil && code != 7 {
				t.Errorf("it ran at %q with %d, %v; want %q, %v", fake.from, code, err, c.from, c.want)
			}
			if unlock, err := h.Lock(t.Context(), "apply", false); !c.busy {
				if err != nil {
					t.Fatalf("the lock is still held: %v", err)
				}
				unlock()
			}
		})
	}
}
