// Package garbage answers which roots nothing needs, and removes them with what only they need. It promises that no
// root goes that is booted, staged, good, pinned or mounted.
package garbage

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/facts"
)

// Options is what the operator asks of gc.
type Options struct {
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

// Garbage collects what the roots of a host leave behind.
type Garbage struct {
	*host.Host
	Live live.Patches
}

// Plan returns what a collection would remove, without the live patches.
func (g *Garbage) Plan(f facts.Facts, rec *record.Record, o Options) (Collected, error) {
	plan := Collected{DryRun: true}
	keep, err := g.needed(f, rec)
	if err == nil {
		plan.Left, err = g.Left(f, rec, o)
	}
	if err != nil {
		return plan, err
	}
	plan.GCReport, err = g.Machine.Trees.Unneeded(append(keep, plan.Left...))
	return plan, err
}

// Left returns the complete roots with an /etc that a person may want back: they ran here, nothing needs them, and
// they were not given up. With o.All, there are none.
func (g *Garbage) Left(f facts.Facts, rec *record.Record, o Options) ([]string, error) {
	if o.All {
		return nil, nil
	}
	etcs, err := g.Machine.Disk.Glob(g.Path(record.StateDir + "/roots/*/etc"))
	if err != nil {
		return nil, fmt.Errorf("cannot look for roots that were left: %w", err)
	}
	needed, err := g.needed(f, rec)
	var left []string
	for _, etc := range etcs {
		id := filepath.Base(filepath.Dir(etc))
		bad, isBad := rec.Bad[id]
		if _, err := g.Machine.Trees.Root(id); err != nil || isBad && !bad.RolledBack || slices.Contains(needed, id) {
			continue
		}
		left = append(left, id)
	}
	return left, err
}

// needed returns the roots that gc must not touch.
func (g *Garbage) needed(f facts.Facts, rec *record.Record) ([]string, error) {
	keep := rec.Needed(f.Root)
	if !g.Machine.Running {
		return keep, nil
	}
	modules, err := g.Machine.Kernel.ModulesFrom(f.KernelRelease)
	return append(keep, modules), err
}

// Collect removes the roots that nothing needs but those in left, and what only they need.
func (g *Garbage) Collect(f facts.Facts, rec *record.Record, left ...string) (store.GCReport, error) {
	keep, err := g.needed(f, rec)
	if err != nil {
		return store.GCReport{}, err
	}
	keep = append(keep, left...)
	report, err := g.Machine.Trees.Collect(keep)
	if err == nil && g.Machine.Running {
		report.LivePatches, err = g.Live.GC(f, keep)
	}
	for _, id := range report.Roots {
		g.Records.AppendEvent(record.Event{Event: record.EventCollected, Root: id,
			Reason: "not booted, staged, good or pinned"})
	}
	before := len(rec.Accepted) + len(rec.Failed)
	maps.DeleteFunc(rec.Accepted, func(id string, _ release.Mark) bool { return !slices.Contains(keep, id) })
	maps.DeleteFunc(rec.Failed, func(id string, _ record.Failed) bool { return !slices.Contains(keep, id) })
	if err == nil && len(rec.Accepted)+len(rec.Failed) != before {
		err = g.Records.WriteOutcome(rec) // gc frees space, and may need some first
	}
	return report, err
}
