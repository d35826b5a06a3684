package roots

import (
	"fmt"
	"slices"

	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/level"
)

// Loss is an [ErrIncompatible] that a person can overrule: the image can run here, but the host would lose services or
// ways in.
type Loss struct {
	// Kinds are what a person has to accept.
	Kinds []record.LossKind
}

func (l Loss) Error() string { return "this host would lose what it has now" }
func (Loss) Unwrap() error   { return ErrIncompatible }

// lossOf is the kind of the loss that a check refuses a root for. All other checks find faults.
var lossOf = map[string]record.LossKind{
	level.CheckWaysIn: record.LossAccess, level.CheckServices: record.LossServices,
}

// refusal returns the error for a decision that refuses a root: a [Loss] if nothing but losses speaks against it,
// otherwise ErrIncompatible.
func refusal(d level.Decision) error {
	var loss Loss
	for _, c := range d.Checks {
		kind, isLoss := lossOf[c.Name]
		switch {
		case c.Verdict != level.VerdictRefuse:
		case !isLoss:
			return ErrIncompatible
		case !slices.Contains(loss.Kinds, kind):
			loss.Kinds = append(loss.Kinds, kind)
		}
	}
	return loss
}

// addLosses adds what the host would lose in a root to the target. What a person accepts, or has accepted before, is
// only noted.
func addLosses(t *level.Target, trees machine.Trees, c machine.EtcChange, rec *record.Record) error {
	lacking, err := trees.LackingFor(c)
	if err != nil {
		return err
	}
	behind, err := trees.StaysBehind(c, 0)
	if err != nil {
		return err
	}
	why := map[string]string{}
	var missed []string
	for _, s := range behind.Services {
		if s.Missed() {
			missed = append(missed, s.Name)
			why[s.Name] = fmt.Sprintf("%s (%s)", s.Name, s.Why)
		}
	}
	var ways, services []string
	t.Lacking, ways = record.SortLosses(rec, record.LossAccess, lacking)
	missed, services = record.SortLosses(rec, record.LossServices, missed)
	t.Vanishing = nil
	for _, name := range missed {
		t.Vanishing = append(t.Vanishing, why[name])
	}
	t.Accepted = slices.Concat(ways, services)
	return nil
}
