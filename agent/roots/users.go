package roots

import (
	"slices"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
)

// usersFile has what was changed in the user databases of this host, root after root.
const usersFile = record.StateDir + "/users.json"

// CarryUsers carries what was changed in the user databases into a root that keeps its own /etc. What fails is logged:
// no switch depends on it. A root that is left because it is unhealthy is not looked at, its databases may be damaged.
func CarryUsers(r *Roots, rec *record.Record, f facts.Facts, next assembly.Next) {
	if rec.Switch.Verb == record.VerbBack {
		return
	}
	m := machine.UserMove{
		History: r.Path(usersFile), Ledger: r.Path(ledgerFile), To: next.ID, Etc: r.EtcAt(next, f),
		Return: rec.Switch.Verb != record.VerbApply, Etcs: map[string]string{},
	}
	if next.ID == switcher.HostRoot {
		m.HostMount = HostMount
	}
	for _, id := range append(slices.Clone(rec.Good), f.Root, switcher.HostRoot) {
		if f.Volatile && id == f.Root {
			continue // who was added there goes with it
		}
		if id != next.ID || m.Return { // what it ran with before an apply is beside its new /etc
			m.Etcs[id] = r.EtcAt(r.Next(id, f), f)
		}
	}
	notes, err := r.Machine.Trees.CarryUsers(m)
	if err != nil {
		r.Log.Warn("cannot carry over what was changed in the user databases", zap.Error(err))
	}
	for _, note := range notes {
		r.Log.Warn("a user or group was not carried over", zap.String("reason", note))
	}
}

// ChangedInEtc returns the paths in the running /etc, without the user databases, that changed since the host switched
// to this root; nil if that is not known. A root that keeps its own /etc does not get them.
func ChangedInEtc(r *Roots, f facts.Facts) []string {
	changed, err := r.Machine.Trees.ChangedInEtc(r.Path(usersFile), f.Root, r.Path("/etc"))
	if err != nil {
		r.Log.Warn("cannot look what stays behind in /etc", zap.Error(err))
	}
	return changed
}
