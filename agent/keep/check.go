package keep

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher/level"
)

// Check adds to the decision about a switch how the units of [[keep]] are kept. The error is a [roots.ErrIncompatible]
// if one cannot be. A full reboot keeps none.
func (k *Keeper) Check(ctx context.Context, change machine.EtcChange, d *level.Decision) error {
	if d.Level == level.Full {
		return nil
	}
	kept, err := k.Judge(ctx, change, false)
	var refused []string
	for _, unit := range kept {
		c := level.Check{Name: "kept unit " + unit.Unit, Verdict: level.VerdictOK, Reason: unit.Reason()}
		if unit.Refusal != "" {
			c.Verdict, c.Reason = level.VerdictRefuse, fmt.Sprintf("[[keep]] %s: %s", unit.Unit, unit.Refusal)
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
