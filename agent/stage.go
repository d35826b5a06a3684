package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/facts"
)

// Stage fetches and verifies the published image and stages it on the disk. It does not switch.
func (a *Agent) Stage(ctx context.Context, o ApplyOptions) (Applied, error) {
	s, err := beginSettled(ctx, a, "stage", o.Wait)
	if err != nil {
		return Applied{}, err
	}
	defer s.close()
	off, done, err := s.fetch(ctx, o)
	if err != nil {
		return done, err
	}
	if err := mayStage(ctx, s, off, done, o); err != nil {
		return done, err
	}
	if done.Root != s.facts.Root {
		var root store.Root
		root, err = s.stage(ctx, off, &done)
		if bad, isBad := s.rec.Bad[done.Root]; isBad && off.Image != nil {
			done.Bad = &bad
		}
		if err == nil && off.Image != nil {
			if decision, err := s.decideLevel(ctx, root, o.Level); err == nil { // apply says why it would refuse
				done.Decision = &decision
			}
		}
	}
	if err == nil && off.Release != nil {
		done.LivePatches, err = a.Live.Survey(ctx, s.facts, s.rec)
	}
	return done, err
}

// mayStage returns why an unattended run must not stage what was found: the fleet fetches in the order of the rollout.
func mayStage(ctx context.Context, s *session, off *offer.Published, done Applied, o ApplyOptions) error {
	if !o.Unattended || !takes(ctx, s, off, done, o) {
		return nil
	}
	return s.Turn.MayFetch(off.Release)
}

// fetch fetches and verifies what is published for this host, and accepts it into the record. A downgrade is accepted
// at once only when its root runs already; otherwise stage accepts it once it is on the disk.
func (s *session) fetch(ctx context.Context, o ApplyOptions) (off *offer.Published, done Applied, err error) {
	off, err = s.fetchVerified(ctx, o.From, s.facts, s.rec, o.AllowDowngrade)
	if !errors.Is(err, context.Canceled) {
		if s.Records.NoteRefusal(err, offer.Refuses(err)) {
			s.Log.Info("what is published is refused", event.Refused.Field(), zap.Error(err))
		}
	}
	if err != nil {
		return nil, done, err
	}
	done = Applied{
		Root: off.Root(s.facts, s.rec), From: s.facts.Root, Reference: off.Reference, Version: off.Mark.Version,
		Vouchers: off.Verified.Vouchers(), Release: off.ReleaseSummary(), Warnings: off.Warnings,
	}
	runs := done.Root == s.facts.Root
	if off.Waived == nil || runs || off.Image == nil {
		err = s.accept(off)
	}
	if err != nil || !runs {
		return off, done, err
	}
	return off, done, errors.Join(s.renewEvidence(off), s.Live.KeepEnabled(ctx, off, s.facts))
}

// fetchVerified fetches and verifies what a reference names; "" is the configured reference. Downgrade allows a
// version older than the last accepted one.
func (a *Agent) fetchVerified(ctx context.Context, reference string, f facts.Facts, rec *record.Record,
	downgrade bool) (*offer.Published, error) {
	fetched, err := a.Offers.Fetch(ctx, reference)
	if err != nil {
		return nil, err
	}
	running := a.Roots.VersionOf(offer.VersionedRoot(f, rec), rec)
	return a.Offers.Verify(ctx, fetched, f, rec, running, downgrade)
}

// stage stages the image on the disk, unless it is there already, and returns its root.
func (s *session) stage(ctx context.Context, off *offer.Published, done *Applied) (store.Root, error) {
	trees := s.Machine.Trees
	if err := s.Live.KeepEnabled(ctx, off, s.facts); err != nil {
		return store.Root{}, err
	}
	if off.Image == nil { // no image is published: the root that ran before a full reboot
		return trees.Root(done.Root)
	}
	_, lookErr := trees.Root(off.Image.ID())
	if err := roots.CanVerify(&s.Roots); err != nil {
		return store.Root{}, err
	}
	if lookErr != nil {
		if err := s.Turn.BeforeFetch(ctx, aboutSwitch(s, done)); err != nil {
			return store.Root{}, err
		}
	}
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
	if lookErr != nil { // the root was not there before
		done.NewBytes = root.Info.NewBytes
		s.Log.Info("staged", event.Staged.Field(), zap.String("root", root.ID), zap.String("version", off.Mark.Version))
		s.Records.AppendEvent(record.Event{
			Event: record.EventStaged, Root: root.ID, Version: off.Mark.Version, Sequence: off.Mark.Sequence,
			Vouchers: root.Info.Vouchers,
		})
	}
	return root, nil
}

// renewEvidence replaces the evidence beside the running root by today's: other keys may have signed the image since
// it was staged.
func (s *session) renewEvidence(off *offer.Published) error {
	if off.Image == nil {
		return nil
	}
	root, err := s.Machine.Trees.Root(off.Image.ID())
	if err != nil {
		return err
	}
	return s.Machine.Trees.Renew(root, off.Image.Verified, s.Now())
}

// stageProgress returns what passes the events of staging on to report, which may be nil.
func stageProgress(report func(Progress)) func(image.Event) {
	if report == nil {
		return func(image.Event) {}
	}
	return func(e image.Event) {
		step := e.Phase
		if e.Layers > 1 {
			step = fmt.Sprintf("%s %d/%d", e.Phase, e.Layer, e.Layers)
		}
		report(Progress{Step: step, Done: e.Done, Total: e.Total})
	}
}

// accept records that a release was accepted, before any layer of it is fetched: from now on an older one is refused,
// even when fetching fails. A downgrade is recorded only once it is on the disk, so that a failed one changes nothing.
func (s *session) accept(off *offer.Published) error {
	if off.Waived != nil {
		s.Records.AppendEvent(record.Event{
			Event: record.EventDowngrade, Root: off.ID(), Version: off.Mark.Version, Sequence: off.Mark.Sequence,
			Reason: "allowed by --allow-downgrade: " + off.Waived.Error(),
		})
		s.Log.Warn("accepting an older version because of --allow-downgrade", zap.String("reason", off.Waived.Error()))
	}
	if !s.rec.Accept(off.Offered(s.rec.Mark), s.Now()) {
		return nil
	}
	return s.Records.Write(s.rec)
}
