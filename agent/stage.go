package agent

import (
	"cmp"
	"context"
	"errors"
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
	s, err := a.begin(ctx, "stage", o.Wait)
	defer s.close()
	if err == nil {
		err = s.settleFirst(ctx)
	}
	if err != nil {
		return Applied{}, err
	}
	off, done, err := s.fetch(ctx, o)
	if err != nil {
		return done, err
	}
	if done.Root != s.facts.Root {
		_, err = s.stage(ctx, off, &done)
		if bad, isBad := s.rec.Bad[done.Root]; isBad && off.Image != nil {
			done.Bad = &bad
		}
	}
	if err == nil && off.Release != nil {
		done.LivePatches, err = a.Live.Survey(ctx, s.facts, s.rec)
	}
	return done, err
}

// fetch finds out what is published for this host, verified, and accepts it into the record. What is older than the record
// is accepted only if it runs; otherwise that waits until it is on the disk.
func (s *session) fetch(ctx context.Context, o ApplyOptions) (off *offer.Published, done Applied, err error) {
	if off, err = s.ask(ctx, o.From, s.facts, s.rec, o.AllowDowngrade); err != nil {
		return nil, done, err
	}
	done = Applied{
		Root: off.Root(s.facts, s.rec), From: s.facts.Root, Reference: off.Reference, Version: off.Mark.Version,
		Vouchers: off.Verified.Vouchers(), Release: off.Told(), Warnings: off.Warnings,
	}
	runs := done.Root == s.facts.Root
	if off.Waived == nil || runs || off.Image == nil {
		err = s.accept(off)
	}
	if err != nil || !runs {
		return off, done, err
	}
	return off, done, errors.Join(s.renew(off), s.Live.KeepEnabled(ctx, off, s.facts))
}

// ask fetches and verifies what a reference stands for, "" for the configured one.
func (a *Agent) ask(ctx context.Context, reference string, f facts.Facts, rec *record.Record, downgrade bool) (*offer.Published, error) {
	fetched, err := a.Offers.Fetch(ctx, reference)
	if err != nil {
		return nil, err
	}
	running := a.Roots.VersionOf(offer.VersionedRoot(f, rec), rec)
	return a.Offers.Verify(ctx, fetched, f, rec, running, downgrade)
}

// stage brings the image onto the disk, or finds it there.
func (s *session) stage(ctx context.Context, off *offer.Published, done *Applied) (store.Root, error) {
	trees := s.Machine.Trees
	if err := s.Live.KeepEnabled(ctx, off, s.facts); err != nil {
		return store.Root{}, err
	}
	if off.Image == nil { // the root that a full reboot left
		return trees.Root(done.Root)
	}
	_, lookErr := trees.Root(off.Image.ID())
	root, err := trees.Stage(ctx, off.Source, off.Image, off.Reference, stageProgress(s.Progress))
	if err != nil {
		return root, err
	}
	if off.Waived != nil {
		if err := s.accept(off); err != nil {
			return root, err
		}
	}
	off.Mark.Version = cmp.Or(off.Mark.Version, root.Info.Version)
	done.Version = off.Mark.Version
	s.rec.Staged, s.rec.Accepted[root.ID] = root.ID, off.Mark
	if err := s.rec.Advance(record.CauseStaged); err != nil {
		return root, err
	}
	if err := s.Records.Write(s.rec); err != nil {
		return root, err
	}
	if lookErr != nil { // it was not there before
		done.NewBytes = root.Info.NewBytes
		s.Records.Tell(record.Event{
			Event: record.EventStaged, Root: root.ID, Version: off.Mark.Version, Sequence: off.Mark.Sequence,
			Vouchers: root.Info.Vouchers,
		})
	}
	return root, nil
}

// renew keeps today's evidence beside the root that runs: it may be signed by others than when it was staged.
func (s *session) renew(off *offer.Published) error {
	if off.Image == nil {
		return nil
	}
	root, err := s.Machine.Trees.Root(off.Image.ID())
	if err != nil {
		return err
	}
	return s.Machine.Trees.Renew(root, off.Image.Verified, s.Now())
}

// stageProgress passes on how far staging is, when somebody wants to know.
func stageProgress(tell func(Progress)) func(image.Event) {
	if tell == nil {
		return func(image.Event) {}
	}
	return func(e image.Event) {
		step := e.Phase
		if e.Layers > 1 {
			step = fmt.Sprintf("%s %d/%d", e.Phase, e.Layer, e.Layers)
		}
		tell(Progress{Step: step, Done: e.Done, Total: e.Total})
	}
}

// accept records that a release was accepted, before anything of it is fetched: from now on an older one is refused, even
// when fetching fails. A downgrade is recorded when it is on the disk: one that failed has not happened.
func (s *session) accept(off *offer.Published) error {
	if off.Waived != nil {
		s.Records.Tell(record.Event{
			Event: record.EventDowngrade, Root: off.ID(), Version: off.Mark.Version, Sequence: off.Mark.Sequence,
			Reason: "allowed by --allow-downgrade: " + off.Waived.Error(),
		})
		s.Log.Warn("going to an older version, as --allow-downgrade allows", zap.String("reason", off.Waived.Error()))
	}
	if !s.rec.Accept(off.Offered(s.rec.Mark), s.Now()) {
		return nil
	}
	return s.Records.Write(s.rec)
}
