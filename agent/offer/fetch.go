package offer

import (
	"context"
	"fmt"
	"github.com/updatectl/updatectl/agent/host"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
)

// Offers asks what is published for a host.
type Offers struct{ *host.Host }

// Published is an image that the source has and the policy passed. No layer of it was fetched yet.
type Published struct {
	Reference string
	Source    *source.Source
	// Verified is what the reference stands for; image is nil for a release of live patches alone.
	Verified *verify.Verified
	Image    *image.Image
	// Release is the release that lists the image, nil for an image on its own; mark is what the record keeps of either.
	Release *release.Release
	Mark    release.Mark
	// seen is the latest time that is known to have passed: by the record, or by the proofs that came with the signatures.
	seen time.Time
	// Waived is why the record would have refused it, had the operator not allowed a downgrade.
	Waived error
	// Warnings are for the operator, whatever becomes of it.
	Warnings []string
}

// userAgent is what registries see.
const userAgent = "updatectl"

// Fetch asks the source what it publishes and has it verified: bounded bytes of the manifest, then its signatures, and
// only then what they say, and whether it is its time.
func (of *Offers) Fetch(ctx context.Context, reference string, f facts.Facts, rec *record.Record, running string, downgrade bool) (*Published, error) {
	policy, err := of.Policy()
	if err != nil {
		return nil, err
	}
	if reference == "" {
		reference = of.Config.Source.Image
	}
	if reference == "" {
		return nil, fmt.Errorf("%w: %s[source] image is empty: name the image to follow", config.ErrConfig, of.Config.Where("source.image"))
	}
	p := &Published{Reference: reference}
	src, err := of.openSource(p)
	if err != nil {
		return nil, err
	}
	desc, err := src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	of.Log.Debug("resolved", zap.String("reference", reference), zap.Stringer("digest", desc.Digest))
	content, err := src.Manifest(ctx, desc)
	if err != nil {
		return nil, err
	}
	candidates, err := src.Candidates(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	verified, err := policy.Verify(content, desc.MediaType, candidates)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", reference, err)
	}
	p.Verified = verified
	return p, of.chooseImage(ctx, p, verified, of.circumstances(f, rec, running, downgrade), f.Root)
}

// openSource opens the reference, and the mirrors if it is the one that they are mirrors of.
func (of *Offers) openSource(p *Published) (src *source.Source, err error) {
	o := source.Options{PlainHTTP: of.Config.Source.PlainHTTP, UserAgent: userAgent}
	if p.Reference == of.Config.Source.Image {
		o.Mirrors = of.Config.Source.Mirrors
	}
	o.Warn = func(err error) {
		p.Warnings = append(p.Warnings, err.Error())
		of.Log.Warn(err.Error())
	}
	p.Source, err = source.Open(p.Reference, o)
	return p.Source, err
}
