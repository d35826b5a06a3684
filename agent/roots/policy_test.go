package roots

import (
	"path/filepath"
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// runs is a machine in which a root runs.
type runs struct {
	machine.Mounts
	root string
}

func (r runs) Mounted() (facts.Mounted, error) { return facts.Mounted{Root: r.root}, nil }

// TestPolicyEtc: a full reboot that lands on the host root does not bring its old configuration back; a host root that
// somebody rolls back to is judged by its own.
func TestPolicyEtc(t *testing.T) {
	const host, v1 = switcher.HostRoot, "v1"
	landed := hosttest.OnTheWay(record.VerbApply, v1, "v2", host, v1)
	landed.Phase = record.PhaseArmed
	rests := hosttest.OnTheWay(record.VerbApply, host, v1, host, v1)
	rests.Phase = record.PhaseGood
	back := hosttest.OnTheWay(record.VerbRollback, v1, host, host, v1)
	hostGood := hosttest.OnTheWay(record.VerbRollback, v1, host, v1, host)
	hostGood.Phase = record.PhaseGood
	of := filepath.Join(record.StateDir, "roots", v1, "etc")
	for name, c := range map[string]struct {
		running string
		rec     *record.Record
		want    string
	}{
		"an image root runs":                 {v1, rests, ""},
		"a full reboot landed":               {host, rests, of},
		"a full reboot interrupted a switch": {host, landed, of},
		"rolled back to, and not judged yet": {host, back, ""},
		"rolled back to, and good":           {host, hostGood, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoots(t)
			r.Machine.Running, r.Machine.Superuser, r.Machine.Mounts = true, true, runs{root: c.running}
			testtree.File(t, r.Machine.Root, of+"/updatectl/updatectl.toml", "")
			if err := r.Records.Write(c.rec); err != nil {
				t.Fatal(err)
			}
			if got, err := r.PolicyEtc(); got != c.want || err != nil {
				t.Errorf("the configuration is read from %q (%v), want %q", got, err, c.want)
			}
		})
	}
}
