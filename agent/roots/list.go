package roots

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

// List is the answer of the command roots.
type List struct {
	// Roots are the host root and every staged one, in the order in which they were staged.
	Roots []Listed `json:"roots"`
	// Warnings name the roots that cannot be read.
	Warnings []string `json:"warnings,omitempty"`
}

// Listed is one root of this host.
type Listed struct {
	Root     string `json:"root"`
	Version  string `json:"version,omitempty"`
	Sequence int64  `json:"sequence,omitempty"` // of its release, 0 for an image without a release
	Name     string `json:"name,omitempty"`     // of the operating system, as in os-release
	// States are what the root is to this host, the most important first; empty when nothing needs it.
	States []State `json:"states"`
	// StagedAt is when the root was staged. It is zero for the host root.
	StagedAt time.Time `json:"staged_at,omitzero"`
	// OwnBytes is the disk space of the files that no other root has: what removing this one alone would free. It is nil
	// for the host root, and when not every root can be read.
	OwnBytes *int64 `json:"own_bytes,omitempty"`
}

// State is what a root is to its host.
type State string

// The states of roots.
const (
	Booted State = "booted"
	Trying State = "trying" // booted, and its health is not judged yet
	Staged State = "staged" // apply would switch to it
	Good   State = "good"
	Pinned State = "pinned"
	Left   State = "left" // by the operator
	Bad    State = "bad"
	Kept   State = "kept" // nothing needs it, but it has an /etc: gc keeps it, unless asked for all
)

// ListAll lists the roots of the host. It changes nothing.
func ListAll(ctx context.Context, r *Roots) (List, error) {
	f, rec, err := r.Look(ctx)
	if err != nil {
		return List{}, err
	}
	host := Listed{Root: switcher.HostRoot, States: statesOf(switcher.HostRoot, f, rec)}
	if f.Root == switcher.HostRoot {
		host.Name = r.PrettyName(switcher.HostRoot)
	}
	list := List{Roots: []Listed{host}}
	staged, err := r.Machine.Trees.Roots()
	if err != nil {
		list.Warnings = append(list.Warnings, err.Error())
	}
	slices.SortStableFunc(staged, func(x, y store.Root) int { return x.Info.VerifiedAt.Compare(y.Info.VerifiedAt) })
	for _, root := range staged {
		states := statesOf(root.ID, f, rec)
		if len(states) == 0 && r.Machine.Disk.Exists(r.Next(root.ID, f).Etc) {
			states = append(states, Kept)
		}
		own, err := ownBytes(r, staged, root.ID)
		if err != nil {
			list.Warnings = append(list.Warnings, fmt.Sprintf("the size of %s is not known: %v", root.ID, err))
		}
		list.Roots = append(list.Roots, Listed{
			Root: root.ID, Version: r.VersionOf(root.ID, rec), Sequence: rec.Accepted[root.ID].Sequence,
			Name: root.Info.OS.PrettyName, States: states, StagedAt: root.Info.VerifiedAt,
			OwnBytes: own,
		})
	}
	return list, nil
}

// ownBytes returns how much disk space only one of the staged roots needs.
func ownBytes(r *Roots, staged []store.Root, id string) (*int64, error) {
	var others []string
	for _, root := range staged {
		if root.ID != id {
			others = append(others, root.ID)
		}
	}
	freed, err := r.Machine.Trees.Unneeded(others)
	if err != nil {
		return nil, err
	}
	none, err := r.Machine.Trees.Unneeded(append(others, id)) // leftovers, which no root needs
	if err != nil {
		return nil, err
	}
	own := freed.Bytes - none.Bytes
	return &own, nil
}

// statesOf returns what a root is to its host.
func statesOf(id string, f facts.Facts, rec *record.Record) []State {
	bad, isBad := rec.Bad[id]
	isGood := slices.Contains(rec.Good, id)
	states := []State{}
	for _, s := range []struct {
		state State
		is    bool
	}{
		{Booted, id == f.Root},
		{Trying, rec.Phase == record.PhaseTrying && id == rec.Switch.Target},
		{Staged, id == rec.Staged && !isBad},
		{Good, isGood},
		{Pinned, slices.Contains(rec.Pinned, id)},
		{Left, isBad && bad.RolledBack},
		{Bad, isBad && !bad.RolledBack},
	} {
		if s.is {
			states = append(states, s.state)
		}
	}
	return states
}
