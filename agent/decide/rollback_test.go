package decide

import (
	"errors"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher"
)

// TestRollback has every case of Rollback, and the hosts to which two cases apply.
func TestRollback(t *testing.T) {
	const host = switcher.HostRoot
	atRest := func(good ...string) *record.Record { return &record.Record{Phase: record.PhaseGood, Good: good} }
	trial := func(verb, from, target string, good ...string) *record.Record {
		return hosttest.OnTheWay(verb, from, target, good...)
	}
	unhealthy, left := record.Bad{Reason: "no network"}, record.Bad{Reason: record.RolledBack, RolledBack: true}
	for name, c := range map[string]struct {
		running string
		rec     *record.Record
		bad     map[string]record.Bad
		to      string // as the operator named it
		watched bool

		do   Act
		root string
		err  error
	}{
		"to the root before": {running: "v2", rec: atRest(host, "v1", "v2"), do: Switch, root: "v1"},
		"to the host root":   {running: "v1", rec: atRest(host, "v1"), do: Switch, root: host},
		"to a named root":    {running: "v2", rec: atRest(host, "v1", "v2"), to: host, do: Switch, root: host},
		"after a full reboot": {
			running: host, rec: atRest(host, "v1"), do: Switch, root: "v1",
		},
		"a guard is still there": {
			running: "v2", rec: atRest(host, "v1", "v2"), watched: true, do: Switch, root: "v1",
		},

		"nothing before":        {running: host, rec: atRest(host), do: Nothing, err: roots.ErrNoRoot},
		"named root runs":       {running: "v1", rec: atRest(host, "v1"), to: "v1", do: Nothing, root: "v1"},
		"host root runs, named": {running: host, rec: atRest(host), to: host, do: Nothing, root: host},
		"named root runs and is bad": {
			running: "v2", rec: atRest(host, "v1"), bad: map[string]record.Bad{"v2": unhealthy}, to: "v2",
			do: Nothing, root: "v2",
		},
		"named root is being tried": {
			running: "v2", rec: trial(record.VerbApply, "v1", "v2", host, "v1"), to: "v2", watched: true,
			do: Nothing, root: "v2",
		},

		"named root was given up": {
			running: "v1", rec: atRest(host, "v1"), bad: map[string]record.Bad{"v2": unhealthy}, to: "v2",
			do: Nothing, root: "v2", err: record.ErrGivenUp,
		},
		"named root was rolled back": {
			running: "v1", rec: atRest(host, "v1"), bad: map[string]record.Bad{"v2": left}, to: "v2",
			do: Switch, root: "v2",
		},
		"named root was good": {
			running: "v2", rec: atRest(host, "v1", "v2"), bad: map[string]record.Bad{"v1": unhealthy}, to: "v1",
			do: Switch, root: "v1",
		},
		"root before was good": {
			running: "v2", rec: atRest(host, "v1", "v2"), bad: map[string]record.Bad{"v1": unhealthy},
			do: Switch, root: "v1",
		},
		"named root was never good, nor bad": {
			running: "v1", rec: atRest(host, "v1"), bad: map[string]record.Bad{"v3": unhealthy}, to: "v2",
			do: Nothing, root: "v2", err: roots.ErrNoRoot,
		},
		"named root was given up, in a trial": {
			running: "v2", rec: trial(record.VerbApply, "v1", "v2", host, "v1"), watched: true,
			bad: map[string]record.Bad{"v3": unhealthy}, to: "v3",
			do: Nothing, root: "v3", err: record.ErrGivenUp,
		},

		"in a trial, to a root that nobody knows": {
			running: "v2", rec: trial(record.VerbApply, "v1", "v2", host, "v1"), to: "v3", watched: true,
			do: Nothing, root: "v3", err: roots.ErrNoRoot,
		},

		"in a trial": {
			running: "v2", rec: trial(record.VerbApply, "v1", "v2", host, "v1"), watched: true,
			do: LeaveTrial, root: "v1",
		},
		"in a trial, from the host root": { // where it came from counts, not the last good root
			running: "v2", rec: trial(record.VerbApply, host, "v2", host, "v1"), watched: true,
			do: LeaveTrial, root: host,
		},
		"in a trial, to a named root": {
			running: "v2", rec: trial(record.VerbApply, "v1", "v2", host, "v1"), to: host, watched: true,
			do: LeaveTrial, root: host,
		},
		"in a trial without a guard": {
			running: "v2", rec: trial(record.VerbApply, host, "v2", host, "v1"), do: Switch, root: "v1",
		},
		"in a trial without a guard, to a named root": {
			running: "v2", rec: trial(record.VerbApply, "v1", "v2", host, "v1"), to: host, do: Switch, root: host,
		},
		"in a trial of a good root": {
			running: "v1", rec: trial(record.VerbRollback, "v2", "v1", host, "v1", "v2"), watched: true,
			do: Switch, root: host,
		},
		"in a trial after an automatic rollback": {
			running: "v1", rec: trial(record.VerbBack, "v2", "v1", host, "v1"), watched: true,
			do: Switch, root: host,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.rec.Bad = c.bad
			d := Rollback(c.running, c.rec, c.to, c.watched)
			if d.Do != c.do || d.To != c.root || !errors.Is(d.Err, c.err) {
				t.Errorf("decided %q to %q, %v; want %q to %q, %v", d.Do, d.To, d.Err, c.do, c.root, c.err)
			}
			if d.Err != nil && d.To == "" && !strings.Contains(d.Err.Error(), "no root before "+c.running) {
				t.Errorf("the error is %q, which names no root", d.Err)
			}
		})
	}
}
