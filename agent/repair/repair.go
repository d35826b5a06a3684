// Package repair answers what is damaged in the staged roots, and fetches that again. It promises that nothing is
// removed before what replaces it is on the disk.
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
	// Repaired lists the damaged paths that are right now; Failed says, for each root that is not, why.
	Repaired []string          `json:"repaired"`
	Failed   map[string]string `json:"failed,omitempty"`
}

// Look reads all roots and objects, and names what is damaged. The error is an ErrDamage if something is.
func (k Fsck) Look(ctx context.Context) (Fscked, error) {
	report, err := k.Machine.Trees.Fsck(ctx)
	return Fscked{FsckReport: report, Repaired: []string{}}, errors.Join(err, damageLeft(report))
}

// Repair is Look that fetches what is damaged again: from where the image came from, by the evidence beside the root
// and today's policy. The error is an ErrDamage if something is damaged still.
func (k Fsck) Repair(ctx context.Context, f facts.Facts) (Fscked, error) {
	done, err := k.Look(ctx)
	if !errors.Is(err, ErrDamage) {
		return done, err
	}
	if err := k.Machine.Trees.Unswap(); err != nil {
		return done, err
	}
	swapped, err := k.Machine.Trees.Fsck(ctx)
	if err != nil {
		return done, err
	}
	done.Failed = k.repair(ctx, f, swapped.Damage)
	after, err := k.Machine.Trees.Fsck(ctx) // a root that was damaged may have hidden what is wrong with its objects
	if err != nil {
		return done, err
	}
	done.Repaired = repaired(done.Damage, after.Damage)
	return done, damageLeft(after)
}

// repair stages the roots that need what is damaged again, and removes what none needs. It returns why roots could not
// be repaired.
func (k Fsck) repair(ctx context.Context, f facts.Facts, damage []store.Damage) map[string]string {
	failed := map[string]string{}
	broken := map[string]bool{}
	for _, d := range damage {
		for _, id := range d.Roots {
			broken[id] = true
		}
		if len(d.Roots) > 0 {
			continue
		}
		if err := k.Machine.Trees.Discard(d); err != nil {
			failed[d.Path] = err.Error()
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
