package agent

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/facts"
)

// GC removes every root that is not booted, staged, good, pinned or mounted, with the objects that only it needs.
func (a *Agent) GC(ctx context.Context) (store.GCReport, error) {
	s, err := a.begin(ctx, "gc", false)
	defer s.close()
	if err != nil && !errors.Is(err, transition.ErrSwitch) {
		return store.GCReport{}, err
	}
	return a.gc(s.facts, s.rec)
}

func (a *Agent) gc(f facts.Facts, rec *record.Record) (store.GCReport, error) {
	keep := rec.Needed(f.Root)
	if a.Machine.Running {
		modules, err := a.Machine.Kernel.ModulesFrom(f.KernelRelease)
		if err != nil {
			return store.GCReport{}, err
		}
		keep = append(keep, modules)
	}
	report, err := a.Machine.Trees.Collect(keep)
	if err == nil && a.Machine.Running {
		report.LivePatches, err = a.Live.GC(f, keep)
	}
	for _, id := range report.Roots {
		a.Records.Tell(record.Event{Event: record.EventCollected, Root: id, Reason: "not booted, staged, good or pinned"})
	}
	before := len(rec.Accepted) + len(rec.Failed)
	maps.DeleteFunc(rec.Accepted, func(id string, _ release.Mark) bool { return !slices.Contains(keep, id) })
	maps.DeleteFunc(rec.Failed, func(id string, _ record.Failed) bool { return !slices.Contains(keep, id) })
	if err == nil && len(rec.Accepted)+len(rec.Failed) != before {
		err = a.Records.Write(rec)
	}
	return report, err
}
