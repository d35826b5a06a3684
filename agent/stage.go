package agent

import (
	"cmp"
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/facts"
)

// Stage brings the published image onto the disk and leaves it there.
func (a *Agent) Stage(ctx context.Context, o ApplyOptions) (Applied, error) {
	unlock, err := a.Lock(ctx, "stage", o.Wait)
	if err != nil {
		return Applied{}, err
	}
	defer unlock()
	w, err := a.offered(ctx, o)
	if err != nil {
		return w.done, err
	}
	if w.done.Root != w.facts.Root {
		_, err = a.stage(ctx, w)
		if bad, isBad := w.rec.Bad[w.done.Root]; isBad && w.offer.Image != nil {
			w.done.Bad = &bad
		}
	}
	if err == nil && w.offer.Release != nil {
		w.done.LivePatches, err = a.Live.Survey(ctx, w.facts, w.rec)
	}
	return w.done, err
}

// fetch is fetchOffer for the version of the root that runs.
func (a *Agent) fetch(ctx context.Context, reference string, f facts.Facts, rec *record.Record, downgrade bool) (*offer.Published, error) {
	return a.Offers.Fetch(ctx, reference, f, rec, a.Roots.VersionOf(offer.VersionedRoot(f, rec), rec), downgrade)
}

// stage brings the image onto the disk, or finds it there.
func (a *Agent) stage(ctx context.Context, w *work) (store.Root, error) {
	p := w.offer
	if err := a.Live.KeepEnabled(ctx, p, w.facts); err != nil {
		return store.Root{}, err
	}
	if p.Image == nil { // the root that a boot of the kernel left
		return w.store.Root(w.done.Root)
	}
	_, lookErr := w.store.Root(p.Image.ID())
	root, err := image.Stage(ctx, w.store, p.Source, p.Image, p.Reference, a.stageProgress)
	if err != nil {
		return root, err
	}
	if p.Waived != nil {
		if err := a.accept(p, w.rec); err != nil {
			return root, err
		}
	}
	p.Mark.Version = cmp.Or(p.Mark.Version, root.Info.Version)
	w.done.Version = p.Mark.Version
	w.rec.Staged, w.rec.Accepted[root.ID] = root.ID, p.Mark
	if err := w.rec.Advance(record.CauseStaged); err != nil {
		return root, err
	}
	if err := a.Records.Write(w.rec); err != nil {
		return root, err
	}
	if lookErr != nil { // it was not there before
		w.done.NewBytes = root.Info.NewBytes
		a.Records.Tell(record.Event{Event: "staged", Root: root.ID, Version: p.Mark.Version, Sequence: p.Mark.Sequence, Vouchers: root.Info.Vouchers})
	}
	return root, nil
}

// renew keeps the evidence of today beside the root that runs: it may be signed by others than when it was staged.
func (a *Agent) renew(st *store.Store, p *offer.Published) error {
	if p.Image == nil {
		return nil
	}
	root, err := st.Root(p.Image.ID())
	if err == nil {
		_, err = root.Renew(p.Image.Verified, a.Now())
	}
	return err
}

func (a *Agent) stageProgress(e image.Event) {
	if a.Progress == nil {
		return
	}
	step := e.Phase
	if e.Layers > 1 {
		step = fmt.Sprintf("%s %d/%d", e.Phase, e.Layer, e.Layers)
	}
	a.Progress(Progress{Step: step, Done: e.Done, Total: e.Total})
}

// accept records that a release was accepted. That comes before anything of it is fetched: from now on an older one is
// refused, also when fetching fails. A downgrade is recorded when it is on the disk: one that failed has
// not happened.
func (a *Agent) accept(p *offer.Published, rec *record.Record) error {
	if p.Waived != nil {
		a.Records.Tell(record.Event{Event: "downgrade", Root: p.Id(), Version: p.Mark.Version, Sequence: p.Mark.Sequence, Reason: "allowed by --allow-downgrade: " + p.Waived.Error()})
		a.Log.Warn("going back, as --allow-downgrade allows", zap.String("why it needs that", p.Waived.Error()))
	}
	if !rec.Accept(p.Offered(rec.Mark), a.Now()) {
		return nil
	}
	return a.Records.Write(rec)
}

// applied begins the answer of apply and stage.
func applied(p *offer.Published, f facts.Facts, rec *record.Record) Applied {
	return Applied{
		Root: p.Root(f, rec), From: f.Root, Reference: p.Reference, Version: p.Mark.Version,
		Vouchers: p.Verified.Vouchers(), Release: p.Told(), Warnings: p.Warnings,
	}
}
