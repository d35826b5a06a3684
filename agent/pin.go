package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher"
)

// Pinned is the answer of pin and unpin.
type Pinned struct {
	Root   string `json:"root"`
	Pinned bool   `json:"pinned"`
	// Changed tells that it was not so before.
	Changed bool `json:"changed"`
}

// Pin keeps a root from gc, or with pinned false gives it free. The beginning of an identity is enough.
func (a *Agent) Pin(ctx context.Context, id string, pinned bool) (Pinned, error) {
	s, err := a.open(ctx, "pin", false)
	if err != nil {
		return Pinned{}, err
	}
	defer s.close()
	rec := s.rec
	if id == switcher.HostRoot {
		return Pinned{}, fmt.Errorf("%w to pin: the host root is never removed", roots.ErrNoRoot)
	}
	of := func(p string) bool { return id != "" && strings.HasPrefix(p, id) }
	if i := slices.IndexFunc(rec.Pinned, of); !pinned && i >= 0 && slices.IndexFunc(rec.Pinned[i+1:], of) < 0 {
		id = rec.Pinned[i] // also one that is not there any more
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
