package transition

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/cgroups"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/holding"
	"github.com/updatectl/updatectl/switcher/pid1"
)

func TestToFreeze(t *testing.T) {
	type processes = []cgroups.Process
	const user = 1000
	services := []pid1.Service{
		{Name: "keep.service", Survives: true, Group: "/system.slice/keep.service"},
		{Name: "systemd-journald.service", Group: "/system.slice/systemd-journald.service"},
		{Name: "app.service", Group: "/system.slice/app.service"},
		{Name: "none.service"},
	}
	for _, test := range []struct {
		group  string
		of     processes
		frozen bool // by somebody else
		want   bool
	}{
		{group: "/init.scope", of: processes{{Name: "systemd"}}},
		{group: "/system.slice/updatectl-arm.service", of: processes{{Self: true}}},
		{group: "/system.slice/updatectl-guard.service", of: processes{{Name: "updatectl"}}},
		{group: "/system.slice/keep.service", of: processes{{UID: user}}},
		{group: "/system.slice/keep.service/inner", of: processes{{UID: user}}},
		{group: "/system.slice/systemd-journald.service", of: processes{{Name: "systemd-journal"}}},
		{group: "/system.slice/initrd.service", of: processes{{Name: "mdmon", Command: "@usr/sbin/mdmon"}}},
		{group: "/system.slice/iscsid.service", of: processes{{Name: "iscsid", Command: "/sbin/iscsid"}}},
		{group: "/system.slice/srv.mount", of: processes{{Name: "sshfs", Command: "sshfs", Fuse: true}}},
		{group: "/system.slice/paused.scope", of: processes{{UID: user}}, frozen: true},

		{group: "/system.slice/cron.service", of: processes{{Name: "sleep"}}, want: true}, // stopped, and left alone
		{group: "/system.slice/app.service", of: processes{{}, {UID: user}}},              // not stopped: the host needs it
		{group: "/system.slice/docker-1.scope", of: processes{{Contained: true}}, want: true},
		{group: "/user.slice/user-1000.slice/session-1.scope", of: processes{{UID: user}}, want: true},
		{group: "/user.slice/user-1000.slice/user@1000.service/init.scope", of: processes{{UID: user}}, want: true},
		{group: "/user.slice/user-1000.slice/user@1000.service/keep.service", of: processes{{UID: user}}, want: true},
		{group: "/user.slice/a.scope", of: processes{{UID: user, Name: "iscsid", Command: "@usr/sbin/iscsid", Fuse: true}},
			want: true},
		{group: "/user.slice/b.scope", of: processes{{Name: "iscsid", Command: "@iscsid", Contained: true}}, want: true},
	} {
		got := toFreeze([]cgroups.Group{{Path: test.group, Frozen: test.frozen, Processes: test.of}}, services)
		if (len(got) > 0) != test.want {
			t.Errorf("%s with %+v: frozen is %v, want %v", test.group, test.of, len(got) > 0, test.want)
		}
	}
	nested := []cgroups.Group{{Path: "/a", Processes: processes{{UID: user}}},
		{Path: "/a/b", Processes: processes{{Self: true}}}, {Path: "/a/bc", Processes: processes{{UID: user}}}}
	if got := toFreeze(nested, nil); !slices.Equal(got, []string{"/a/bc"}) {
		t.Errorf("above one that is spared: %q", got)
	}
}

// fakeGroups are control groups of which one never holds still.
type fakeGroups struct {
	all            []cgroups.Group
	frozen, killed []string
	failure        error
}

func (g *fakeGroups) List() (left []cgroups.Group, err error) {
	for _, group := range g.all {
		group.Frozen = slices.Contains(g.frozen, group.Path)
		left = append(left, group)
	}
	return left, g.failure
}

func (*fakeGroups) Holding(string, []string) ([]string, error) { return nil, nil }
func (*fakeGroups) Holders() ([]holding.Holder, error)         { return nil, nil }

func (g *fakeGroups) Freeze(groups []string) ([]string, error) {
	g.frozen = append(g.frozen, groups...)
	return groups[:1], nil
}
func (g *fakeGroups) Thaw() error                { g.frozen = nil; return nil }
func (g *fakeGroups) ThawLate() error            { return nil }
func (g *fakeGroups) Kill(groups []string) error { g.killed = append(g.killed, groups...); return nil }

type noUnits struct{ pid1.Units }

func (noUnits) Unstopped(context.Context) ([]pid1.Service, error) { return nil, nil }

// TestNothingStaysFrozen: not after an arming that fails, and what does not hold still is ended.
func TestNothingStaysFrozen(t *testing.T) {
	a := newArrival(t)
	a.Machine.Running, a.Machine.Units = true, noUnits{}
	user := []cgroups.Process{{UID: 1000}}
	groups := &fakeGroups{all: []cgroups.Group{{Path: "/a", Processes: user}, {Path: "/b", Processes: user}}}
	a.Machine.Groups = groups
	thaw := holdStill(t.Context(), a.Host)
	if !slices.Equal(groups.frozen, []string{"/a", "/b"}) || !slices.Equal(groups.killed, []string{"/a"}) {
		t.Errorf("frozen %q, killed %q", groups.frozen, groups.killed)
	}
	if thaw(); groups.frozen != nil {
		t.Errorf("%q stay frozen", groups.frozen)
	}
	a.Machine.Kernel = noFacts{a.Machine.Kernel}
	if err := armStill(t.Context(), &a.Mover, &record.Record{}); !errors.Is(err, errNoFacts) || groups.frozen != nil {
		t.Errorf("after %v, %q stay frozen", err, groups.frozen)
	}
	groups.failure = errors.New("no hierarchy")
	holdStill(t.Context(), a.Host)() // is logged only
}

var errNoFacts = errors.New("no facts")

type noFacts struct{ machine.Kernel }

func (noFacts) Facts(context.Context) (facts.Facts, error) { return facts.Facts{}, errNoFacts }
