// Package repair answers what is damaged in the staged roots, and fetches that again. It promises that nothing that a
// root may need is removed before its replacement is on the disk.
package repair

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/facts"
)

// Fsck looks for damage in the staged roots of a host.
type Fsck struct {
	*host.Host
	Offers offer.Offers
	// Progress is called while an image is fetched; it may be nil.
	Progress func(image.Event)
}

// ErrDamage means that fsck found damage that is still there.
var ErrDamage = errors.New("files in the store are damaged")

// Fscked is the answer of fsck.
type Fscked struct {
	store.FsckReport
	// Repaired lists the damaged paths that are right now. Failed says why a root or a path could not be repaired.
	Repaired []string          `json:"repaired"`
	Failed   map[string]string `json:"failed,omitempty"`
}

// Look reads all roots and objects, and names what is damaged. The error is an ErrDamage if something is and
// everything was read.
func (k Fsck) Look(ctx context.Context) (Fscked, error) {
	report, err := k.Machine.Trees.Fsck(ctx)
	if err == nil {
		err = damageLeft(report)
	}
	return Fscked{FsckReport: report, Repaired: []string{}}, err
}

// Repair is like Look, and fetches what is damaged again: from where the image came from, by the evidence beside the
// root and today's policy. Damaged objects that no root needs are removed, and damaged inventories. The error is an
// ErrDamage if something is still damaged.
func (k Fsck) Repair(ctx context.Context, f facts.Facts) (Fscked, error) {
	done, err := k.Look(ctx)
	if !errors.Is(err, ErrDamage) {
		return done, err
	}
	damage := done.Damage
	swapped, err := k.Machine.Trees.Unswap()
	if err != nil {
		return done, err
	}
	if swapped {
		report, err := k.Machine.Trees.Fsck(ctx)
		if err != nil {
			return done, err
		}
		damage = report.Damage
	}
	done.Failed = k.restageAll(ctx, f, damage)
	after, err := k.Machine.Trees.Fsck(ctx) // a root that was damaged may have hidden what is wrong with its objects
	if err != nil {
		return done, err
	}
	if !rootsLeft(after.Damage) {
		after.Damage = k.discard(after.Damage, done.Failed)
	}
	done.Repaired = repaired(done.Damage, after.Damage)
	done.Roots, done.Objects, done.Verified = after.Roots, after.Objects, after.Verified
	return done, damageLeft(after)
}

// restageAll stages the roots that need what is damaged again. It returns why roots could not be repaired.
func (k Fsck) restageAll(ctx context.Context, f facts.Facts, damage []store.Damage) map[string]string {
	failed, broken := map[string]string{}, map[string]bool{}
	for _, d := range damage {
		for _, id := range d.Roots {
			broken[id] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(broken)) {
		if err := k.restage(ctx, f, id); err != nil {
			k.Log.Warn("cannot repair a root", zap.String("root", id), zap.Error(err))
			failed[id] = err.Error()
		}
	}
	return failed
}

// rootsLeft reports whether a root is damaged. Which objects it needs may then be unknown, so none is removed.
func rootsLeft(damage []store.Damage) bool {
	return slices.ContainsFunc(damage, func(d store.Damage) bool { return len(d.Roots) > 0 })
}

// discard removes the damaged objects, which no root needs. It returns those that it cannot remove, and adds why to
// failed.
func (k Fsck) discard(damage []store.Damage, failed map[string]string) []store.Damage {
	left := []store.Damage{}
	for _, d := range damage {
		if err := k.Machine.Trees.Discard(d); err != nil {
			failed[d.Path] = err.Error()
			left = append(left, d)
		}
	}
	return left
}

// restage fetches the image of a root again, as far as it is damaged.
func (k Fsck) restage(ctx context.Context, f facts.Facts, id string) error {
	root, err := k.Machine.Trees.At(id)
	if err != nil {
		return err
	}
	evidence, err := root.Evidence()
	if err != nil {
		return fmt.Errorf("%w; `updatectl stage --from REFERENCE` stages an image without it", err)
	}
	off, err := k.Offers.Restage(ctx, root.Info.Reference, evidence, f)
	if err != nil {
		return err
	}
	if off.Image.ID() != id {
		return fmt.Errorf("the evidence in %s is for %s: its directory was swapped", root.Dir, off.Image.ID())
	}
	_, err = k.Machine.Trees.Stage(ctx, off.Source, off.Image, off.Reference, k.Progress)
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
