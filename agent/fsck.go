package agent

import (
	"context"

	"github.com/updatectl/updatectl/agent/repair"
)

// Fsck names what is damaged in the staged roots and, if asked to, fetches that again. The error is a
// [repair.ErrDamage] if something is damaged still.
func Fsck(ctx context.Context, a *Agent, mend bool) (repair.Fscked, error) {
	k := repair.Fsck{Host: a.Host, Offers: a.Offers, Progress: stageProgress(a.Progress)}
	if !mend {
		return k.Look(ctx)
	}
	s, err := a.begin(ctx, "fsck", false)
	defer s.close()
	if s == nil {
		return repair.Fscked{}, err
	}
	return k.Repair(ctx, s.facts)
}
