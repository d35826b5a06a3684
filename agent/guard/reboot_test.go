package guard

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
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

// onNewKernel returns a watch over a root that is tried on a new kernel, and its record.
func onNewKernel(t *testing.T) (*watch, *record.Record) {
	t.Helper()
	gd := newGuard(t)
	r := hosttest.OnTheWay(record.VerbApply, "v1", "v2", "host", "v1")
	r.Switch.At = time.Unix(1, 0).UTC()
	r.Switch.Start = level.Start{Entry: "k2", Word: "updatectl.kernel=k2"}
	if !r.Switch.OnNewKernel() {
		t.Fatal("the record is not that of a switch to a new kernel")
	}
	return &watch{Guard: gd, change: *r.Switch, leg: legTrying, shutdown: time.Minute}, r
}

// TestJudgedOnNewKernel: a root that confirm has marked good meanwhile is not left, and no systemd or kernel is asked.
func TestJudgedOnNewKernel(t *testing.T) {
	w, r := onNewKernel(t)
	w.Machine.Systemd, w.Machine.Kernel = nil, nil
	old, err := r.Clone()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Proved("v2"), w.Records.Write(r)); err != nil {
		t.Fatal(err)
	}
	if err := leaveKernel(t.Context(), w, observation{Mounted: facts.Mounted{Root: "v2"}, record: old}); err != nil {
		t.Error(err)
	}
	if now, err := w.Records.Read(); err != nil || len(now.Bad) > 0 || w.rebootSince != 0 {
		t.Errorf("the good root is bad: %+v, %v", now.Bad, err)
	}
}

// slowShutdown is a systemd whose services stop for a time, and a kernel.
type slowShutdown struct {
	machine.Systemd
	machine.Kernel
	begun    time.Time
	services time.Duration
	state    string
	rebooted time.Duration // when the kernel was asked
}

func (s *slowShutdown) SinceBoot() time.Duration { return time.Since(s.begun) }

func (s *slowShutdown) Reboot() error {
	s.rebooted = s.SinceBoot()
	return nil
}

func (s *slowShutdown) AskManager(context.Context) (pid1.Manager, error) {
	m := pid1.Manager{State: s.state, Stopping: []string{pid1.GuardUnit}}
	if s.SinceBoot() < s.services {
		m.Stopping = append(m.Stopping, "database.service")
	}
	return m, nil
}

// TestSeeReboot: a full reboot that leaves a new kernel is not kept up by services for longer than they may take, and
// the guard keeps nothing up itself.
func TestSeeReboot(t *testing.T) {
	for name, c := range map[string]struct {
		leg      leg
		services time.Duration
		state    string
		ends     time.Duration // about when the guard ends
		reboots  bool
	}{
		"services stop":            {legTrying, 5 * time.Second, stopping, 5 * time.Second, false},
		"services hang":            {legTrying, time.Hour, stopping, time.Minute, true},
		"nothing shuts down":       {legTrying, time.Hour, "running", 0, false},
		"before it was tried":      {legLeaving, time.Hour, stopping, 0, false},
		"in the root that is back": {legReturned, time.Hour, stopping, 0, false},
		"while it is rolled back":  {legReturning, time.Hour, stopping, time.Minute, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			w, _ := onNewKernel(t)
			fake := &slowShutdown{begun: time.Now(), services: c.services, state: c.state}
			w.Machine.Systemd, w.Machine.Kernel, w.leg = fake, fake, c.leg
			if err := seeReboot(w); err != nil {
				t.Error(err)
			}
			ended := fake.SinceBoot()
			if ended < c.ends || ended > c.ends+2*lookInterval || (fake.rebooted > 0) != c.reboots {
				t.Errorf("%s: it ends after %v, and the kernel reboots after %v", name, ended, fake.rebooted)
			}
		})
	}
	w, _ := onNewKernel(t)
	w.change.Start, w.Machine.Systemd = level.Start{}, nil
	if err := seeReboot(w); err != nil {
		t.Error(err)
	}
}
