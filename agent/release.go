package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
)

// Release is what people are told of a release.
type Release struct {
	Digest digest.Digest `json:"digest"`
	release.Header
}

// versioned is the root whose version counts for what may be taken: the one that runs, or after a full reboot, and in
// another tree, where nothing runs, the last good one.
func versioned(f facts.Facts, rec *Record) string {
	if f.Root == switcher.HostRoot {
		return rec.good()
	}
	return f.Root
}

// circumstances are what a release is judged by on this host.
func (a *Agent) circumstances(f facts.Facts, rec *Record, running string, downgrade bool) release.Facts {
	return release.Facts{
		Now: a.Now(), Seen: rec.Seen, Mark: rec.Mark, AllowDowngrade: downgrade,
		Running: running, Fresh: versioned(f, rec) == switcher.HostRoot,
		Platform:   ocispec.Platform{OS: "linux", Architecture: f.Architecture},
		Compatible: a.Config.Source.Compatible, Systemd: f.Systemd,
	}
}

// versionOf is the version that a root was accepted as, or that its image has; "" when neither is known.
func (a *Agent) versionOf(root string, rec *Record) string {
	if m, ok := rec.Accepted[root]; ok || root == switcher.HostRoot {
		return m.Version
	}
	st, err := a.openStore()
	if err != nil {
		return ""
	}
	staged, err := st.Root(root)
	if err != nil {
		return ""
	}
	return staged.Info.Version
}

// choose finds the image that a verified manifest or index has for this host, and judges whether it may be taken.
func (a *Agent) choose(ctx context.Context, p *published, v *verify.Verified, f release.Facts, running string) error {
	if verify.IsIndex(v.MediaType()) && release.Is(v.Bytes()) {
		return a.chooseReleased(ctx, p, v, f)
	}
	var err error
	if p.image, err = image.Open(ctx, p.source, v, f.Platform); err != nil {
		return err
	}
	p.mark = release.Mark{Version: p.image.Version()}
	switch err := p.order(f.Mark); {
	case err == nil, p.image.ID() == running: // what runs is not gone back to
		return nil
	case f.AllowDowngrade:
		p.waived = err
		return nil
	default:
		return fmt.Errorf("%s: %w", p.reference, err)
	}
}

// latest is the latest of a time and the proven times of signatures. These passed, whatever the clock says.
func latest(t time.Time, vouchers []verify.Voucher) time.Time {
	for _, v := range vouchers {
		if v.SignedAt.After(t) {
			t = v.SignedAt
		}
	}
	return t
}

func (a *Agent) chooseReleased(ctx context.Context, p *published, v *verify.Verified, f release.Facts) error {
	var err error
	if p.release, err = release.Parse(v); err != nil {
		return fmt.Errorf("%s: %w", p.reference, err)
	}
	p.mark = release.Mark{Sequence: p.release.Sequence, Version: p.release.Version, Digest: p.release.Digest}
	f.Seen = latest(f.Seen, v.Vouchers())
	p.seen = f.Seen
	if back := f.ClockBack(); back > 0 {
		p.warnings = append(p.warnings, fmt.Sprintf("the clock says %s, which is %s before the latest time that this host has seen; releases expire by the latter",
			f.Now.UTC().Format(time.RFC3339), back.Round(time.Second)))
		a.Log.Warn(p.warnings[len(p.warnings)-1])
	}
	chosen, err := p.release.Admit(f)
	if err != nil {
		return fmt.Errorf("%s: %w", p.reference, howTo(err, p.reference))
	}
	if err := p.order(f.Mark); err != nil {
		p.waived = err
	}
	if chosen.Descriptor.Digest == "" { // live patches alone
		return nil
	}
	content, err := p.source.Manifest(ctx, chosen.Descriptor)
	if err != nil {
		return err
	}
	manifest, err := v.Descend(chosen.Descriptor, content)
	if err != nil {
		return err
	}
	if p.image, err = image.Open(ctx, p.source, manifest, f.Platform); err != nil {
		return err
	}
	p.image.Seal = chosen.RootDigest
	return nil
}

// order compares what is published with what was accepted before.
func (p *published) order(m release.Mark) error {
	if p.release != nil {
		return p.release.Order(m)
	}
	return release.OrderImage(p.mark.Version, m)
}

// accept records that a release was accepted. That comes before anything of it is fetched: from now on an older one is
// refused, also when fetching fails. A downgrade is recorded when it is on the disk: one that failed has
// not happened.
func (a *Agent) accept(p *published, rec *Record) error {
	if p.waived != nil {
		a.tell(Event{Event: "downgrade", Root: p.id(), Version: p.mark.Version, Sequence: p.mark.Sequence, Reason: "allowed by --allow-downgrade: " + p.waived.Error()})
		a.Log.Warn("going back, as --allow-downgrade allows", zap.String("why it needs that", p.waived.Error()))
	}
	if !rec.accept(p.offered(rec.Mark), a.Now()) {
		return nil
	}
	return a.writeRecord(rec)
}

// Offered is what was published, as the record keeps it.
type Offered struct {
	// Root is the identity of its root, "" for a release of live patches alone.
	Root string
	// Release tells whether it is a release; otherwise it is an image on its own.
	Release bool
	// Mark is its place in the order of releases.
	Mark release.Mark
	// Seen is the latest time that is known to have passed, by the record or by proofs that came with signatures.
	Seen time.Time
	// InOrder tells whether it may follow what was accepted before: it is not older, or the operator allowed it.
	InOrder bool
}

// accept records what was published as accepted, and returns whether the record changed.
func (r *Record) accept(o Offered, now time.Time) bool {
	before, seen := r.Mark, r.Seen
	as := r.Accepted[o.Root]
	switch {
	case o.Release:
		r.Mark = o.Mark
		if o.Root != "" {
			r.Accepted[o.Root] = o.Mark
		}
		for _, t := range []time.Time{now, o.Seen} {
			if t.After(r.Seen) {
				r.Seen = t.UTC()
			}
		}
	case r.Mark.Sequence > 0, !release.Ordered(o.Mark.Version):
		// An image on its own says nothing about the order of releases, even if the operator takes it.
	case o.InOrder:
		r.Mark = o.Mark
	}
	return r.Mark != before || r.Accepted[o.Root] != as || !r.Seen.Equal(seen)
}

// leave marks the root that is left for an older version: like one that was rolled back from, it is not taken again by an
// unattended apply, which would undo the night after what the operator did.
func (r *Record) leave(root, version string, now time.Time) {
	r.Bad[root] = Bad{Reason: "left by the operator for version " + version, At: now.UTC()}
}

// offered is what the record keeps of what is published.
func (p *published) offered(m release.Mark) Offered {
	return Offered{Root: p.id(), Release: p.release != nil, Mark: p.mark, Seen: p.seen, InOrder: p.waived != nil || p.order(m) == nil}
}

// olderThan tells whether what is published comes before the release that a root was accepted as.
func (p *published) olderThan(rec *Record, root string) bool {
	as, known := rec.Accepted[root]
	return known && p.order(as) != nil
}

// applied begins the answer of apply and stage.
func applied(p *published, f facts.Facts, rec *Record) Applied {
	return Applied{
		Root: p.root(f, rec), From: f.Root, Reference: p.reference, Version: p.mark.Version,
		Vouchers: p.verified.Vouchers(), Release: p.told(), Warnings: p.warnings,
	}
}

// id is the identity of the image's root, "" for a release of live patches alone.
func (p *published) id() string {
	if p.image == nil {
		return ""
	}
	return p.image.ID()
}

// root is the root that a host is to run by what is published. Without an image it is the one that runs, or the good one
// when a boot of the kernel landed on the mutable host.
func (p *published) root(f facts.Facts, rec *Record) string {
	switch {
	case p.image != nil:
		return p.image.ID()
	case f.Root == switcher.HostRoot:
		return rec.good()
	}
	return f.Root
}

// listed are the live patches of the release, none of which needs to be stored. Only of a stored one it is known what it is.
func listed(p *published, stored []patches.Stored) []knownLivePatch {
	var list []knownLivePatch
	for _, l := range p.release.LivePatches {
		k := knownLivePatch{LivePatch: l, unseen: true, vouchers: p.verified.Vouchers()}
		if i := slices.IndexFunc(stored, func(s patches.Stored) bool { return s.Descriptor.Digest == l.Descriptor.Digest }); i >= 0 {
			k.unseen, k.note = false, stored[i].Note
		}
		list = append(list, k)
	}
	return list
}

// told is the release for people, nil for an image on its own.
func (p *published) told() *Release {
	if p.release == nil {
		return nil
	}
	return &Release{Digest: p.release.Digest, Header: p.release.Header}
}

// howTo adds to a barrier the command that goes through it.
func howTo(err error, reference string) error {
	var b *release.Barrier
	if !errors.As(err, &b) {
		return err
	}
	if there := source.WithTag(reference, b.Version); there != "" {
		return fmt.Errorf("%w (`updatectl apply --from %s`, if that is its tag)", err, there)
	}
	return err
}
