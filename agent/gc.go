package agent

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/facts"
)

// GCOptions is what the operator asks of gc.
type GCOptions struct {
	// All also removes roots that ran here and were left, with their /etc.
	All bool
	// DryRun removes nothing, and reports what would be removed.
	DryRun bool
}

// Collected is the answer of gc.
type Collected struct {
	store.GCReport
	// DryRun is whether nothing was removed: the report is about what would be.
	DryRun bool `json:"dry_run,omitempty"`
	// Left lists the roots that nothing needs and that are kept for their /etc.
	Left []string `json:"left,omitempty"`
}

// GC removes every root that is not booted, staged, good, pinned or mounted, with the objects that only it needs. A
// root that the host ran and left is kept, too, unless o.All: its /etc may hold changes that are nowhere else.
func (a *Agent) GC(ctx context.Context, o GCOptions) (Collected, error) {
	if o.DryRun {
		f, rec, err := a.Look(ctx)
		if err != nil {
			return Collected{}, err
		}
		return planGC(a, f, rec, o)
	}
	s, err := a.begin(ctx, "gc", false)
	defer s.close()
	if s == nil {
		return Collected{}, err
	}
	left, err := leftRoots(a, s.facts, s.rec, o)
	if err != nil {
		return Collected{}, err
	}
	report, err := a.gc(s.facts, s.rec, left...)
	return Collected{GCReport: report, Left: left}, err
}

// planGC returns what GC would remove, without the live patches.
func planGC(a *Agent, f facts.Facts, rec *record.Record, o GCOptions) (Collected, error) {
	plan := Collected{DryRun: true}
	keep, err := neededRoots(a, f, rec)
	if err == nil {
		plan.Left, err = leftRoots(a, f, rec, o)
	}
	if err != nil {
		return plan, err
	}
	plan.GCReport, err = a.Machine.Trees.Unneeded(append(keep, plan.Left...))
	return plan, err
}

// leftRoots returns the complete roots with an /etc that a person may want back: they ran here, nothing needs them, and
// they were not given up. With o.All, there are none.
func leftRoots(a *Agent, f facts.Facts, rec *record.Record, o GCOptions) ([]string, error) {
	if o.All {
		return nil, nil
	}
	etcs, err := a.Machine.Disk.Glob(a.Path(record.StateDir + "/roots/*/etc"))
	if err != nil {
		return nil, fmt.Errorf("cannot look for roots that were left: %w", err)
	}
	needed, err := neededRoots(a, f, rec)
	var left []string
	for _, etc := range etcs {
		id := filepath.Base(filepath.Dir(etc))
		bad, isBad := rec.Bad[id]
		if _, err := a.Machine.Trees.Root(id); err != nil || isBad && !bad.RolledBack || slices.Contains(needed, id) {
			continue
		}
		left = append(left, id)
	}
	return left, err
}

// neededRoots returns the roots that gc must not touch.
func neededRoots(a *Agent, f facts.Facts, rec *record.Record) ([]string, error) {
	keep := rec.Needed(f.Root)
	if !a.Machine.Running {
		return keep, nil
	}
	modules, err := a.Machine.Kernel.ModulesFrom(f.KernelRelease)
	return append(keep, modules), err
}

// gc removes the roots that nothing needs but those in left, and what only they need.
func (a *Agent) gc(f facts.Facts, rec *record.Record, left ...string) (store.GCReport, error) {
	keep, err := neededRoots(a, f, rec)
	if err != nil {
		return store.GCReport{}, err
	}
	keep = append(keep, left...)
	report, err := a.Machine.Trees.Collect(keep)
	if err == nil && a.Machine.Running {
		report.LivePatches, err = a.Live.GC(f, keep)
	}
	for _, id := range report.Roots {
		a.Records.AppendEvent(record.Event{Event: record.EventCollected, Root: id,
			Reason: "not booted, staged, good or pinned"})
	}
	before := len(rec.Accepted) + len(rec.Failed)
	maps.DeleteFunc(rec.Accepted, func(id string, _ release.Mark) bool { return !slices.Contains(keep, id) })
	maps.DeleteFunc(rec.Failed, func(id string, _ record.Failed) bool { return !slices.Contains(keep, id) })
	if err == nil && len(rec.Accepted)+len(rec.Failed) != before {
		err = a.Records.WriteOutcome(rec) // gc frees space, and may need some first
	}
	return report, err
}
