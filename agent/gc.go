package agent

import (
	"context"

	"github.com/updatectl/updatectl/agent/garbage"
)

// GC removes every root that is not booted, staged, good, pinned or mounted, with the objects that only it needs. A
// root that the host ran and left is kept, too, unless o.All: its /etc may hold changes that are nowhere else.
func (a *Agent) GC(ctx context.Context, o garbage.Options) (garbage.Collected, error) {
	if o.DryRun {
		f, rec, err := a.Look(ctx)
		if err != nil {
			return garbage.Collected{}, err
		}
		return a.Garbage.Plan(f, rec, o)
	}
	s, err := a.begin(ctx, "gc", false)
	defer s.close()
	if s == nil {
		return garbage.Collected{}, err
	}
	left, err := a.Garbage.Left(s.facts, s.rec, o)
	if err != nil {
		return garbage.Collected{}, err
	}
	report, err := a.Garbage.Collect(s.facts, s.rec, left...)
	return garbage.Collected{GCReport: report, Left: left}, err
}
