package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/image/store"
)

// ErrDamage means that fsck found damage that is still there.
var ErrDamage = errors.New("files in the store are damaged")

// Fscked is the answer of fsck.
type Fscked struct {
	store.FsckReport
	// Repaired lists the damaged paths that are right now; Failed says, for each root that is not, why.
	Repaired []string          `json:"repaired"`
	Failed   map[string]string `json:"failed,omitempty"`
}

// Fsck reads all roots and objects of the store and names what is damaged. With repair, it fetches that again: from
// where the image came from, by the evidence beside the root and today's policy. Nothing is removed before what
// replaces it is on the disk. The error is an ErrDamage if something is damaged still.
func (a *Agent) Fsck(ctx context.Context, repair bool) (Fscked, error) {
	done := Fscked{Repaired: []string{}}
	if !repair {
		report, err := a.Machine.Trees.Fsck(ctx)
		done.FsckReport = report
		return done, errors.Join(err, damageLeft(report))
	}
	s, err := a.begin(ctx, "fsck", false)
	defer s.close()
	if err != nil && !errors.Is(err, transition.ErrSwitch) {
		return done, err
	}
	if done.FsckReport, err = a.Machine.Trees.Fsck(ctx); err != nil || len(done.Damage) == 0 {
		return done, err
	}
	if err := s.Machine.Trees.Unswap(); err != nil {
		return done, err
	}
	swapped, err := a.Machine.Trees.Fsck(ctx)
	if err != nil {
		return done, err
	}
	done.Failed = s.repair(ctx, swapped.Damage)
	after, err := a.Machine.Trees.Fsck(ctx) // a root that was damaged may have hidden what is wrong with its objects
	if err != nil {
		return done, err
	}
	done.Repaired = repaired(done.Damage, after.Damage)
	return done, damageLeft(after)
}

// repair stages the roots that need what is damaged again, and removes what none needs. It returns why roots could not
// be repaired.
func (s *session) repair(ctx context.Context, damage []store.Damage) map[string]string {
	failed := map[string]string{}
	broken := map[string]bool{}
	for _, d := range damage {
		for _, id := range d.Roots {
			broken[id] = true
		}
		if len(d.Roots) > 0 {
			continue
		}
		if err := s.Machine.Trees.Discard(d); err != nil {
			failed[d.Path] = err.Error()
		}
	}
	for _, id := range slices.Sorted(maps.Keys(broken)) {
		if err := s.restage(ctx, id); err != nil {
			s.Log.Warn("cannot repair a root", zap.String("root", id), zap.Error(err))
			failed[id] = err.Error()
		}
	}
	return failed
}

// restage fetches the image of a root again, as far as it is damaged.
func (s *session) restage(ctx context.Context, id string) error {
	root, err := s.Machine.Trees.At(id)
	if err != nil {
		return err
	}
	evidence, err := root.Evidence()
	if err != nil {
		return fmt.Errorf("%w; `updatectl stage --from REFERENCE` stages an image without it", err)
	}
	off, err := s.Offers.Restage(ctx, root.Info.Reference, evidence, s.facts)
	if err != nil {
		return err
	}
	if off.Image.ID() != id {
		return fmt.Errorf("the evidence in %s is for %s: its directory was swapped", root.Dir, off.Image.ID())
	}
	_, err = s.Machine.Trees.Stage(ctx, off.Source, off.Image, off.Reference, stageProgress(s.Progress))
	return err
}

// repaired returns the paths of damage that is gone.
func repaired(before, after []store.Damage) []string {
	gone := []string{}
	for _, d := range before {
		if !slices.ContainsFunc(after, func(left store.Damage) bool { return left.Path == d.Path }) {
			gone = append(gone, d.Path)
		}
	}
	return gone
}

// damageLeft returns an ErrDamage if a report has damage.
func damageLeft(r store.FsckReport) error {
	if len(r.Damage) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d of them", ErrDamage, len(r.Damage))
}
