package offer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
)

// Release is a release in the answers of commands.
type Release struct {
	Digest digest.Digest `json:"digest"`
	release.Header
}

// VersionedRoot returns the root whose version a release is compared with: the running one, or the last good one if
// the host root runs (after a full reboot) or nothing does (in another tree).
func VersionedRoot(f facts.Facts, rec *record.Record) string {
	if f.Root == switcher.HostRoot {
		return rec.LastGood()
	}
	return f.Root
}

// Order returns what releases are compared with today. An invalid policy makes no release fall.
func (o *Offers) Order(rec *record.Record) record.Order {
	return record.OrderOf(rec, func(v record.Vouched) []string {
		policy, err := o.Policy()
		if err != nil {
			return nil
		}
		lapsed, err := policy.Lapsed(v.Vouchers, v.At)
		if err != nil {
			return nil
		}
		return lapsed
	})
}

// circumstances returns the facts by which a release is judged on this host.
func (o *Offers) circumstances(f facts.Facts, rec *record.Record, running string, downgrade bool) release.Facts {
	order := o.Order(rec)
	return release.Facts{
		Now: o.Now(), Seen: order.Seen, Mark: order.Mark, AllowDowngrade: downgrade,
		Running: running, Fresh: VersionedRoot(f, rec) == switcher.HostRoot,
		Platform:   ocispec.Platform{OS: "linux", Architecture: f.Architecture},
		Compatible: o.Config.Source.Compatible, Stream: o.Config.Source.Stream, Systemd: f.Systemd,
	}
}

// chooseImage finds the image for this host in a verified manifest or index, and decides whether the host may take it.
func (o *Offers) chooseImage(ctx context.Context, p *Published, v *verify.Verified, f release.Facts,
	running string) error {
	if verify.IsIndex(v.MediaType()) && release.Is(v.Bytes()) {
		return o.chooseReleased(ctx, p, v, f)
	}
	err := release.CheckImageStream(f)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Reference, err)
	}
	if p.Image, err = image.Open(ctx, p.Source, v, f.Platform); err != nil {
		return err
	}
	p.Mark = release.Mark{Version: p.Image.Version()}
	switch err := p.order(f.Mark); {
	case err == nil, p.Image.ID() == running: // the image that runs is no downgrade
		return nil
	case f.AllowDowngrade:
		p.Waived = err
		return nil
	default:
		return fmt.Errorf("%s: %w", p.Reference, err)
	}
}

// latestProven returns the latest of t and the proven times of signatures. A proven time has passed, whatever the
// clock says.
func latestProven(t time.Time, vouchers []verify.Voucher) time.Time {
	for _, v := range vouchers {
		if v.SignedAt.After(t) {
			t = v.SignedAt
		}
	}
	return t
}

// chooseReleased is chooseImage for a release.
func (o *Offers) chooseReleased(ctx context.Context, p *Published, v *verify.Verified, f release.Facts) error {
	var err error
	if p.Release, err = release.Parse(v); err != nil {
		return fmt.Errorf("%s: %w", p.Reference, err)
	}
	p.Mark = release.Mark{Sequence: p.Release.Sequence, Version: p.Release.Version, Digest: p.Release.Digest}
	f.Seen = latestProven(f.Seen, v.Vouchers())
	p.seen = f.Seen
	if back := f.ClockBack(); back > 0 {
		o.warn(p, fmt.Sprintf("the clock says %s, which is %s before the latest time that this host has seen; releases "+
			"expire by the latter: check the clock", f.Now.UTC().Format(time.RFC3339), back.Round(time.Second)))
	}
	chosen, err := p.Release.Admit(f)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Reference, withBarrierCommand(err, p.Reference))
	}
	if err := p.order(f.Mark); err != nil {
		p.Waived = err
	}
	if chosen.Descriptor.Digest == "" { // a release of live patches alone
		return nil
	}
	content, err := p.Source.Manifest(ctx, chosen.Descriptor)
	if err != nil {
		return err
	}
	manifest, err := v.Descend(chosen.Descriptor, content)
	if err != nil {
		return err
	}
	if p.Image, err = image.Open(ctx, p.Source, manifest, f.Platform); err != nil {
		return err
	}
	p.Image.Seal = chosen.RootDigest
	return nil
}

// order returns why the published release or image may not follow a mark, nil if it may.
func (p *Published) order(m release.Mark) error {
	if p.Release != nil {
		return p.Release.Order(m)
	}
	return release.OrderImage(p.Mark.Version, m)
}

// Offered returns p in the form that the record keeps; m is the mark of what was accepted before.
func (p *Published) Offered(m release.Mark) record.Offered {
	if p.after.Fallen != nil {
		m = p.after.Mark
	}
	o := record.Offered{Root: p.ID(), Release: p.Release != nil, Mark: p.Mark, After: p.after, Seen: p.seen}
	o.InOrder = p.Waived != nil || p.order(m) == nil
	if p.Verified != nil {
		o.Vouchers = p.Verified.Vouchers()
	}
	return o
}

// OlderThan reports whether p is older than the release that a root was accepted as; false if that is not recorded.
func (p *Published) OlderThan(rec *record.Record, root string) bool {
	as, accepted := rec.Accepted[root]
	return accepted && p.order(as) != nil
}

// ID returns the identity of the image's root, "" for a release of live patches alone.
func (p *Published) ID() string {
	if p.Image == nil {
		return ""
	}
	return p.Image.ID()
}

// Root returns the root that the host should run. For a release of live patches alone, this is the running root, or
// the last good one if a full reboot landed on the host root.
func (p *Published) Root(f facts.Facts, rec *record.Record) string {
	switch {
	case p.Image != nil:
		return p.Image.ID()
	case f.Root == switcher.HostRoot:
		return rec.LastGood()
	}
	return f.Root
}

// ReleaseSummary returns the release for the answers of commands, nil for an image on its own.
func (p *Published) ReleaseSummary() *Release {
	if p.Release == nil {
		return nil
	}
	return &Release{Digest: p.Release.Digest, Header: p.Release.Header}
}

// withBarrierCommand adds to a [release.Barrier] the command that applies the release which has to come first.
func withBarrierCommand(err error, reference string) error {
	var b *release.Barrier
	if !errors.As(err, &b) {
		return err
	}
	if first := source.WithTag(reference, b.Version); first != "" {
		return fmt.Errorf("%w (`updatectl apply --from %s`, if that is its tag)", err, first)
	}
	return err
}
