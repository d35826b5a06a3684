// Package hosttest makes hosts and records for the tests of the agent's rooms.
package hosttest

import (
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// New returns a host in a temporary directory, with the default configuration and its state directories.
func New(t *testing.T) *host.Host {
	t.Helper()
	h := host.On(machine.Host(t.TempDir(), record.StateDir), zap.NewNop())
	h.Config = config.Default()
	testtree.File(t, h.Machine.Root, record.StateDir+"/.keep", "")
	testtree.File(t, h.Machine.Root, switcher.RunDir+"/.keep", "")
	return h
}

// OnTheWay returns the record of a host that is on its way between two roots.
func OnTheWay(verb, from, target string, good ...string) *record.Record {
	return &record.Record{
		Phase: record.PhaseTrying, Good: good, Bad: map[string]record.Bad{}, Accepted: map[string]release.Mark{},
		Attempts: map[string]int{}, Failed: map[string]record.Failed{},
		Switch: &record.Switch{Verb: verb, At: time.Unix(1, 0), Expectation: level.Expectation{From: from, Target: target}},
	}
}
