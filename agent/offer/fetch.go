// Package offer answers what is published for this host. It promises that nothing is parsed before its signatures were
// verified, and that no layer is fetched here.
package offer

import (
	"context"
	"fmt"
	"time"

	"github.com/updatectl/updatectl/agent/host"

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

// Fetched is what a reference stands for, with what may be signatures of it. Nothing of it is verified yet.
type Fetched struct {
	offer      *Published
	content    []byte
	mediaType  string
	candidates []verify.Candidate
}

// Fetch asks a source what it publishes: bounded bytes of the manifest and of its signatures. The reference "" is the
// configured one.
func (o *Offers) Fetch(ctx context.Context, reference string) (*Fetched, error) {
	if reference == "" {
		reference = o.Config.Source.Image
	}
	if reference == "" {
		return nil, fmt.Errorf("%w: %s[source] image is empty: name the image to follow", config.ErrConfig, o.Config.Where("source.image"))
	}
	if _, err := o.Policy(); err != nil { // nothing is fetched that could not be judged
		return nil, err
	}
	p := &Published{Reference: reference}
	src, err := o.openSource(p)
	if err != nil {
		return nil, err
	}
	desc, err := src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	o.Log.Debug("resolved", zap.String("reference", reference), zap.Stringer("digest", desc.Digest))
	content, err := src.Manifest(ctx, desc)
	if err != nil {
		return nil, err
	}
	candidates, err := src.Candidates(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	return &Fetched{p, content, desc.MediaType, candidates}, nil
}

// Verify judges what was fetched: first its signatures, and only then what it says, and whether this host may take it now.
// Running is the version that runs; downgrade allows what is older than what was accepted before.
func (o *Offers) Verify(ctx context.Context, fetched *Fetched, f facts.Facts, rec *record.Record, running string,
	downgrade bool) (*Published, error) {
	policy, err := o.Policy()
	if err != nil {
		return nil, err
	}
	p := fetched.offer
	if p.Verified, err = policy.Verify(fetched.content, fetched.mediaType, fetched.candidates); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Reference, err)
	}
	return p, o.chooseImage(ctx, p, p.Verified, o.circumstances(f, rec, running, downgrade), f.Root)
}

// openSource opens the reference, and the mirrors if it is the one that they are mirrors o.
func (o *Offers) openSource(p *Published) (src *source.Source, err error) {
	options := source.Options{PlainHTTP: o.Config.Source.PlainHTTP, UserAgent: userAgent}
	if p.Reference == o.Config.Source.Image {
		options.Mirrors = o.Config.Source.Mirrors
	}
	options.Warn = func(err error) {
		p.Warnings = append(p.Warnings, err.Error())
		o.Log.Warn(err.Error())
	}
	p.Source, err = source.Open(p.Reference, options)
	return p.Source, err
}
