package volatile

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/level"
)

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		running, root string
		level         level.Level
		why           string // "" where the switch may be made
	}{
		"another root":                    {"v2", "v3", level.Soft, ""},
		"one that was good":               {"v2", "v1", level.Soft, ""},
		"from the host root":              {switcher.HostRoot, "v1", level.Soft, ""},
		"a full reboot":                   {"v2", "v3", level.Full, "the level of this one is full"},
		"the root that runs":              {"v1", "v1", level.Soft, "v1 runs already"},
		"the last good root":              {switcher.HostRoot, "v2", level.Soft, "v2 is the last good root"},
		"the last good root, which runs":  {"v2", "v2", level.Soft, "v2 runs already"},
		"the last good root, fully, runs": {"v2", "v2", level.Full, "the level of this one is full"},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &record.Record{Good: []string{switcher.HostRoot, "v1", "v2"}}
			err := check(facts.Facts{Root: c.running}, rec, c.root, c.level)
			if c.why == "" && err == nil {
				return
			}
			if c.why == "" || !errors.Is(err, ErrNot) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("check: %v, want %q", err, c.why)
			}
		})
	}
}

func TestMayBegin(t *testing.T) {
	trial := facts.Facts{Root: "v3", Volatile: true}
	for command, want := range map[string]error{"apply": ErrRuns, "switch": ErrRuns, "plan": ErrRuns, "stage": nil} {
		if err := MayBegin(trial, command); !errors.Is(err, want) {
			t.Errorf("%s in a volatile root: %v, want %v", command, err, want)
		}
		if err := MayBegin(facts.Facts{Root: "v3"}, command); err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
	if bad := Left(trial); bad != nil {
		t.Errorf("a volatile root that is left is bad: %+v", bad)
	}
	if bad := Left(facts.Facts{Root: "v3"}); bad == nil || !bad.RolledBack {
		t.Errorf("a root that is left is %+v", bad)
	}
}

func TestSurvivors(t *testing.T) {
	got := survivors([]keep.Active{
		{Name: "db.service", Survives: true, Runs: true},
		{Name: "once.service", Survives: true}, // it has run, and left no process
		{Name: "web.service", Preserves: true, Stored: 1},
		{Name: "later.service", Preserves: true}, // it may store files when it stops
		{Name: "systemd-journald.service", Preserves: true, Stored: 9},
		{Name: "systemd-odd.service", Survives: true, Runs: true},
		{Name: "updatectl-guard.service", Survives: true, Runs: true},
		{Name: "plain.service", Runs: true}, {Name: "web.socket", Survives: true},
	})
	if want := []string{"db.service", "web.service", "later.service", "systemd-odd.service"}; !slices.Equal(got, want) {
		t.Errorf("survivors are %v, want %v", got, want)
	}
}
