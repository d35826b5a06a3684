package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// requireLive refuses what only makes sense on the running host.
func (a *Agent) requireLive() error {
	if !a.Machine.Live() {
		return fmt.Errorf("cannot do this to another tree (--root %s): only the running host can switch", filepath.Clean(a.Machine.Root))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("cannot switch roots: %w", host.ErrPermission)
	}
	return nil
}

// stranded tells that the host is there and that it is worth trying to go on to the good root.
func (w *work) stranded() bool {
	return w.onHost() && w.rec.ResumeAttempts(w.rec.LastGood()) < record.MaxAttempts
}

// onHost tells that a boot of the kernel landed on the mutable host while an image root is the good one.
func (w *work) onHost() bool {
	return w.rec != nil && w.facts.Root == switcher.HostRoot && w.rec.LastGood() != switcher.HostRoot
}

// work is what apply and stage hold in their hands: the host as it is, what is published for it, and the answer so far.
type work struct {
	store *store.Store
	facts facts.Facts
	rec   *record.Record
	offer *offer.Published
	// asked: the host itself could take an image, and the source was asked for one.
	asked bool
	done  Applied
}

// offered finds out what is published for this host and accepts it into the record; what is older than the record, only
// if it runs: otherwise that waits until it is on the disk. A root that is not confirmed yet is no place to go on from:
// it may have to be left backwards.
func (a *Agent) offered(ctx context.Context, o ApplyOptions) (*work, error) {
	w := &work{}
	var err error
	if w.store, w.facts, w.rec, err = a.begin(ctx); err != nil {
		return w, err
	}
	if err := a.able(w.facts); err != nil {
		return w, err
	}
	if w.rec.Phase == record.PhaseTrying {
		if err := a.settle(ctx, w.facts, w.rec); err != nil {
			return w, fmt.Errorf("%w: %w", ErrTrying, err)
		}
	}
	w.asked = true
	if w.offer, err = a.fetch(ctx, o.From, w.facts, w.rec, o.AllowDowngrade); err != nil {
		return w, err
	}
	w.done = applied(w.offer, w.facts, w.rec)
	runs := w.done.Root == w.facts.Root
	if w.offer.Waived == nil || runs || w.offer.Image == nil {
		err = a.accept(w.offer, w.rec)
	}
	if err != nil || !runs {
		return w, err
	}
	return w, errors.Join(a.renew(w.store, w.offer), a.Live.KeepEnabled(ctx, w.offer, w.facts))
}

// begin is the start of every command that changes something: leftovers are swept and the record is reconciled.
func (a *Agent) begin(ctx context.Context) (*store.Store, facts.Facts, *record.Record, error) {
	facts, rec, err := a.Look(ctx)
	if err != nil {
		return nil, facts, nil, err
	}
	st, err := a.Roots.OpenStore()
	if err != nil {
		return nil, facts, nil, err
	}
	if err := st.Sweep(); err != nil {
		return nil, facts, nil, err
	}
	if a.Machine.Live() {
		err = a.Transition.DisarmLeftover(ctx, facts, rec)
		if !errors.Is(err, transition.ErrGuardLeaves) {
			err = errors.Join(err, a.Transition.Reconcile(ctx, facts, rec))
		}
	}
	if err == nil && rec.Phase != record.PhaseTrying { // then a guard may be writing, and it takes no lock
		err = a.sweep()
	}
	return st, facts, rec, err
}

// able refuses a host that no image can help, before anything is fetched for it.
func (a *Agent) able(f facts.Facts) error {
	if c := level.CheckHost(f); a.Machine.Live() && c.Verdict == level.VerdictRefuse {
		return fmt.Errorf("%w: %s", ErrHostTooOld, c.Reason)
	}
	return nil
}
