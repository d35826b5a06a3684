package agent

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/level"
)

// checkKept adds to a decision how the units of [[keep]] are kept. The error is a [roots.ErrIncompatible] if one cannot
// be. A full reboot keeps none.
func (s *session) checkKept(ctx context.Context, root store.Root, d *level.Decision) error {
	if d.Level == level.Full {
		return nil
	}
	kept, err := s.Transition.Keep.Judge(ctx, s.Roots.EtcChange(root.ID, s.facts, s.rec), false)
	var refused []string
	for _, k := range kept {
		c := level.Check{Name: "kept unit " + k.Unit, Verdict: level.VerdictOK, Reason: k.Reason()}
		if k.Refusal != "" {
			c.Verdict, c.Reason = level.VerdictRefuse, fmt.Sprintf("[[keep]] %s: %s", k.Unit, k.Refusal)
			refused = append(refused, c.Reason)
		}
		d.Checks = append(d.Checks, c)
	}
	if len(refused) > 0 {
		d.Level = level.None
		err = cmp.Or(err, fmt.Errorf("%w: %s", roots.ErrIncompatible, strings.Join(refused, "; ")))
	}
	return err
}
