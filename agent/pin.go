package agent

import (
	"context"
	"fmt"
	"slices"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher"
)

// Pinned is the answer of pin and unpin.
type Pinned struct {
	Root   string `json:"root"`
	Pinned bool   `json:"pinned"`
	// Changed is whether the call changed anything.
	Changed bool `json:"changed"`
}

// Pin keeps a root from gc, or with pinned false lets gc remove it. The beginning of its identity is enough. The error
// is a [roots.ErrNoRoot] when no root, or more than one, has that name, a [roots.ErrHostRoot] for the host root, and a
// [record.ErrBlocked] while a switch is under way.
func (a *Agent) Pin(ctx context.Context, id string, pinned bool) (Pinned, error) {
	s, err := a.open(ctx, "pin", false)
	if err != nil {
		return Pinned{}, err
	}
	defer s.close()
	rec := s.rec
	if rec.Moving() { // the arming step and the guard write the record without the lock
		return Pinned{}, fmt.Errorf("%w: the switch to %s is under way", record.ErrBlocked, rec.Switch.Target)
	}
	if id == switcher.HostRoot {
		return Pinned{}, fmt.Errorf("%w: it is never removed, pinned or not", roots.ErrHostRoot)
	}
	matches := func(p string) bool { return roots.Names(id, p) }
	if i := slices.IndexFunc(rec.Pinned, matches); !pinned && i >= 0 && slices.IndexFunc(rec.Pinned[i+1:], matches) < 0 {
		id = rec.Pinned[i] // a pinned root may be gone from the disk
	} else {
		root, err := a.Roots.Find(id)
		if err != nil {
			return Pinned{}, err
		}
		id = root.ID
	}
	p := Pinned{Root: id, Pinned: pinned, Changed: slices.Contains(rec.Pinned, id) != pinned}
	if !p.Changed {
		return p, nil
	}
	rec.Pinned = slices.DeleteFunc(rec.Pinned, func(p string) bool { return p == id })
	if pinned {
		rec.Pinned = append(rec.Pinned, id)
	}
	return p, a.Records.Write(rec)
}
