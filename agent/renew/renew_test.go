package renew

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// units is a PID 1 with some services; it notes what it is asked for.
type units struct {
	machine.Units
	services []pid1.Service
	asked    *[]string
	err      error
}

func (u units) Services(context.Context) ([]pid1.Service, error) { return u.services, nil }

func (u units) Unstopped(context.Context) ([]pid1.Service, error) { return u.services, nil }

func (u units) Renew(_ context.Context, unit string) error {
	*u.asked = append(*u.asked, "renew "+unit)
	return u.err
}

func (u units) StartWanted(context.Context) ([]string, error) {
	*u.asked = append(*u.asked, "start wanted")
	return nil, nil
}

func (u units) StartLingering(context.Context) ([]string, error) {
	*u.asked = append(*u.asked, "start lingering")
	return nil, nil
}

func (u units) TriggerDevices(context.Context) error {
	*u.asked = append(*u.asked, "devices")
	return u.err
}

const before, arrival, after = time.Minute, time.Hour, 2 * time.Hour

// newRenewal returns a renewal on a host that arrived at a time, with services.
func newRenewal(t *testing.T, services ...pid1.Service) (*Renewal, *[]string) {
	t.Helper()
	r := &Renewal{Host: hosttest.New(t), ReadStamp: func() *level.Stamp { return &level.Stamp{At: arrival} }}
	asked := &[]string{}
	r.Machine.Units = units{services: services, asked: asked}
	testtree.File(t, r.Machine.Root, "/etc/updatectl/renew.d/10-site.conf", `# of this site
site-*.service  renew  # its rules
apparmor.service keep  # this site does it by hand
apparmor.service renew # too late
gpu-setup@*.service tolerate # its driver stays
lvm2-monitor.service keep # this site needs it
nonsense
other.service   remove
`)
	return r, asked
}

// TestRun: what is active from before is renewed by the lists, and nothing else is touched.
func TestRun(t *testing.T) {
	r, asked := newRenewal(t,
		pid1.Service{Name: "ufw.service", Changed: before},
		pid1.Service{Name: "console-setup.service", Changed: after},
		pid1.Service{Name: "apparmor.service", Changed: before},
		pid1.Service{Name: "site-rules.service", Changed: before},
		pid1.Service{Name: "systemd-udev-trigger.service", Changed: before},
		pid1.Service{Name: "mdmon@md0.service", Changed: before, Runs: true},
		pid1.Service{Name: "unknown.service", Changed: before},
		pid1.Service{Name: "site-survivor.service", Changed: before, Survives: true},
		pid1.Service{Name: "updatectl-guard.service", Changed: before},
	)
	err := r.Run(t.Context())
	want := []string{"renew ufw.service", "renew site-rules.service", "devices", "start wanted", "start lingering"}
	if !slices.Equal(*asked, want) {
		t.Errorf("asked for %q, want %q", *asked, want)
	}
	if err == nil || !strings.Contains(err.Error(), `"nonsense"`) ||
		!strings.Contains(err.Error(), `"other.service   remove"`) {
		t.Errorf("the error does not name the lines that are none: %v", err)
	}
}

// TestRunFails: what cannot be renewed does not keep the rest from it.
func TestRunFails(t *testing.T) {
	r, asked := newRenewal(t, pid1.Service{Name: "ufw.service"}, pid1.Service{Name: "console-setup.service"})
	broken := errors.New("broken")
	r.Machine.Units = units{services: r.Machine.Units.(units).services, asked: asked, err: broken}
	core, logged := observer.New(zap.InfoLevel)
	r.Log = zap.New(core)
	defer func() {
		if units := logged.All()[0].ContextMap()["units"]; len(units.([]any)) != 0 {
			t.Errorf("the journal says that %v are renewed", units)
		}
	}()
	if err := r.Run(t.Context()); !errors.Is(err, broken) || len(*asked) != 4 {
		t.Errorf("%v after %q", err, *asked)
	}
}

// TestNoSwitch: nothing is old before the first switch.
func TestNoSwitch(t *testing.T) {
	r, asked := newRenewal(t, pid1.Service{Name: "ufw.service", Changed: before})
	r.ReadStamp = func() *level.Stamp { return nil }
	old, err := r.Left(t.Context())
	if err = errors.Join(err, r.Run(t.Context())); err != nil || len(*asked) != 0 || len(old) != 0 {
		t.Errorf("asked for %q, old %v, %v", *asked, old, err)
	}
}

// TestOld: what stays old, afterwards and as foreseen.
func TestOld(t *testing.T) {
	r, _ := newRenewal(t,
		pid1.Service{Name: "ufw.service", Changed: before},
		pid1.Service{Name: "console-setup.service", Changed: after, ReloadFailed: true},
		pid1.Service{Name: "keyboard-setup.service", Changed: after},
		pid1.Service{Name: "apparmor.service", Changed: before},
		pid1.Service{Name: "mdmon@md0.service", Changed: before, Runs: true},
		pid1.Service{Name: "systemd-udev-settle.service", Changed: before},
		pid1.Service{Name: "systemd-zram-setup@zram0.service", Changed: before},
		pid1.Service{Name: "survivor.service", Changed: before, Survives: true, Runs: true},
		pid1.Service{Name: "unknown.service", Changed: before},
		pid1.Service{Name: "ssh.service", Changed: after, Stops: true, Runs: true},
		pid1.Service{Name: "killed.service", Changed: after, Runs: true},
		pid1.Service{Name: "updatectl-guard.service", Changed: before, Survives: true},
	)
	const survives, unlisted = "it survives soft reboots (SurviveFinalKillSignal=)",
		"no list says how to renew it (/etc/updatectl/renew.d)"
	staying := []Old{
		{"apparmor.service", "this site does it by hand"},
		{"mdmon@md0.service", "arrays with external metadata stop without it"},
		{"survivor.service", survives}, {"unknown.service", unlisted},
	}
	if got, err := r.Staying(t.Context()); err != nil || !reflect.DeepEqual(got, staying) {
		t.Errorf("staying are %v, %v; want %v", got, err, staying)
	}
	left := slices.Insert(slices.Clone(staying), 1, Old{"console-setup.service",
		"renewing it failed (journalctl -u updatectl-renew.service -u console-setup.service)"})
	left = append(left, Old{"ufw.service",
		"renewing it failed (journalctl -u updatectl-renew.service -u ufw.service)"})
	slices.SortFunc(left, func(a, b Old) int { return strings.Compare(a.Unit, b.Unit) })
	if got, err := r.Left(t.Context()); err != nil || !reflect.DeepEqual(got, left) {
		t.Errorf("left are %v, %v; want %v", got, err, left)
	}
}

// TestShippedList: every line is a rule, with a reason.
func TestShippedList(t *testing.T) {
	rules, err := parseRules(configs.Renew())
	if err != nil || len(rules) < 10 {
		t.Errorf("%d rules, %v", len(rules), err)
	}
	for _, r := range rules {
		if r.Reason == "" {
			t.Errorf("%s has no reason", r.Pattern)
		}
	}
}

// TestTolerated: the host's own lists count, and go first.
func TestTolerated(t *testing.T) {
	r, _ := newRenewal(t)
	want := []string{"gpu-setup@*.service", "systemd-zram-setup@*.service"}
	if got := r.Tolerated(); !slices.Equal(got, want) {
		t.Errorf("tolerated are %q, want %q", got, want)
	}
}
