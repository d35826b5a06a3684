package guard

import (
	"errors"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// movedMounts are those of a host that has switched.
type movedMounts struct {
	machine.Mounts
	now facts.Mounted
}

func (m movedMounts) Mounted() (facts.Mounted, error) { return m.now, nil }

// TestSwitchedMeanwhile: what the guard decided for one root, it does not do to the next. There is no kernel and no
// systemd here that could reboot, and the record stays as it is.
func TestSwitchedMeanwhile(t *testing.T) {
	gd := newGuard(t)
	gd.Machine.Mounts = movedMounts{now: facts.Mounted{Root: "v2", Mount: 8}}
	gd.Machine.Kernel, gd.Machine.Systemd = nil, nil
	r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
	r.Phase = record.PhaseArmed
	r.Switch.At = time.Unix(1, 0).UTC()
	if err := gd.Records.Write(r); err != nil {
		t.Fatal(err)
	}
	w := &watch{Guard: gd, change: *r.Switch, leg: legLeaving, mount: 7, reason: "the shutdown is stuck"}
	seen := observation{
		Mounted: facts.Mounted{Root: "v1", Mount: 7}, now: time.Minute, record: r, manager: &pid1.Manager{SoftReboot: true},
	}
	for name, do := range map[string]func() error{
		"unjam":       func() error { return w.unjam(t.Context(), seen) },
		"full reboot": func() error { return w.fullReboot(seen) },
	} {
		if err := do(); !errors.Is(err, errSwitched) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now, err := gd.Records.Read(); err != nil || now.Phase != record.PhaseArmed || now.Last != nil {
		t.Errorf("the record is now %+v, %v", now, err)
	}
}
