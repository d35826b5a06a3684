package roots

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/behind"
	"github.com/updatectl/updatectl/switcher/level"
)

// loses are trees with a root in which this host would lose something.
type loses struct {
	machine.Trees
	lacking  []string
	services []behind.Service
}

func (l loses) LackingFor(machine.EtcChange) ([]string, error) { return l.lacking, nil }

func (l loses) StaysBehind(machine.EtcChange, time.Duration) (behind.Report, error) {
	return behind.Report{Services: l.services}, nil
}

// TestAddLosses: what somebody would miss is a loss until it is accepted; what only stays behind is none.
func TestAddLosses(t *testing.T) {
	trees := loses{lacking: []string{"pam_x.so"}, services: []behind.Service{
		{Name: "app.service", Why: "no unit", Local: true, Enabled: true},
		{Name: "web.service", Why: "no unit", Running: true},
	}}
	var target level.Target
	rec := &record.Record{}
	if err := addLosses(&target, trees, machine.EtcChange{}, rec); err != nil ||
		!slices.Equal(target.Vanishing, []string{"app.service (no unit)"}) || len(target.Lacking) != 1 ||
		target.Accepted != nil {
		t.Errorf("%+v (%v)", target, err)
	}
	rec.Accepting = record.LossKinds
	if err := addLosses(&target, trees, machine.EtcChange{}, rec); err != nil || target.Vanishing != nil ||
		target.Lacking != nil || !slices.Equal(target.Accepted, []string{"pam_x.so", "app.service"}) {
		t.Errorf("accepted: %+v (%v)", target, err)
	}
	rec.Accepting = nil
	if err := addLosses(&target, trees, machine.EtcChange{}, rec); err != nil || target.Vanishing != nil {
		t.Errorf("the next time: %+v (%v)", target, err)
	}
}

// TestRefusal: a loss can be accepted, and a fault beside it cannot.
func TestRefusal(t *testing.T) {
	check := func(name string, v level.Verdict) level.Check { return level.Check{Name: name, Verdict: v} }
	for name, c := range map[string]struct {
		checks []level.Check
		kinds  []record.LossKind // nil for no loss
	}{
		"services": {[]level.Check{check("kernel", level.VerdictFull), check(level.CheckServices, level.VerdictRefuse)},
			[]record.LossKind{record.LossServices}},
		"both": {[]level.Check{check(level.CheckWaysIn, level.VerdictRefuse),
			check(level.CheckServices, level.VerdictRefuse)}, []record.LossKind{record.LossAccess, record.LossServices}},
		"a fault": {[]level.Check{check("init", level.VerdictRefuse)}, nil},
		"a loss and a fault": {[]level.Check{check(level.CheckServices, level.VerdictRefuse),
			check("init", level.VerdictRefuse)}, nil},
	} {
		_, err := chooseLevel(level.Decision{Checks: c.checks}, level.Soft, config.FallbackRefuse)
		var loss Loss
		if is := errors.As(err, &loss); is != (c.kinds != nil) || !slices.Equal(loss.Kinds, c.kinds) ||
			!errors.Is(err, ErrIncompatible) {
			t.Errorf("%s: %v is a loss of %v, want %v", name, err, loss.Kinds, c.kinds)
		}
	}
}
