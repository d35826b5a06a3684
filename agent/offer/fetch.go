// Package offer answers what is published for this host. It promises that nothing is parsed before its signatures are
// verified, and that it fetches no layers.
package offer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/fetcher"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
)

// Offers asks what is published for a host.
type Offers struct{ *host.Host }

// Published is a release or an image that the source has and the policy accepted. None of its layers is fetched yet.
type Published struct {
	Reference string
	Source    *source.Source
	// Verified is the manifest or index that the reference names; Image is nil for a release of live patches alone.
	Verified *verify.Verified
	Image    *image.Image
	// Release is the release that lists the image, nil for an image on its own; Mark is what the record keeps of either.
	Release *release.Release
	Mark    release.Mark
	// after is what it is compared with.
	after record.Order
	// seen is the latest time known to have passed, from the record or from the proven times of signatures.
	seen time.Time
	// Waived is why this would be refused if the operator did not allow a downgrade, nil if it is in order.
	Waived error
	// Warnings are for the operator, whether or not this is applied.
	Warnings []string
}

// userAgent is what registries see.
const userAgent = "updatectl"

// Fetched is the manifest or index that a reference names, with candidates for its signatures. None of it is verified
// yet.
type Fetched struct {
	offer      *Published
	content    []byte
	mediaType  string
	candidates []verify.Candidate
}

// Fetch fetches the manifest or index that a reference names, and candidates for its signatures; all reads are
// bounded. The reference "" means the configured one. The error is a [config.ErrConfig] if there is none or the policy
// is invalid, and otherwise that of the source.
func (o *Offers) Fetch(ctx context.Context, reference string) (*Fetched, error) {
	if reference == "" {
		reference = o.Config.Source.Image
	}
	if reference == "" {
		return nil, fmt.Errorf("%w: %s[source] image is empty: name the image to follow",
			config.ErrConfig, o.Config.Where("source.image"))
	}
	if _, err := o.Policy(); err != nil { // fetch nothing that cannot be verified
		return nil, err
	}
	p := &Published{Reference: reference}
	for _, kept := range o.KeptRestrictions() {
		o.warn(p, kept)
	}
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

// Verify verifies the signatures of what was fetched, and only then parses it and decides whether this host may take
// it now. running is the version that runs; downgrade allows one that is older than what was accepted before. Errors
// wrap those of verify, image and image/release.
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
	p.after = o.Order(rec)
	if fallen := p.after.String(); fallen != "" {
		o.warn(p, fallen)
	}
	return p, o.chooseImage(ctx, p, p.Verified, o.circumstances(f, rec, running, downgrade), f.Root)
}

// Refuses reports whether an error of Fetch or Verify is a refusal of what is published. Errors of the configuration or
// of a source that does not answer are none, nor is a release that comes first.
func Refuses(err error) bool {
	return err != nil && !errors.Is(err, config.ErrConfig) && !errors.Is(err, failure.ErrSource) &&
		!errors.Is(err, release.ErrBarrier)
}

// warn logs a warning and keeps it in p.
func (o *Offers) warn(p *Published, warning string) {
	p.Warnings = append(p.Warnings, warning)
	o.Log.Warn(warning)
}

// openSource opens the source of the reference. The configured mirrors are used only for the configured reference.
// Warnings of the source are logged and kept in p.
func (o *Offers) openSource(p *Published) (src *source.Source, err error) {
	options := source.Options{
		PlainHTTP: o.Config.Source.PlainHTTP, UserAgent: userAgent, Rate: int64(o.Config.Source.MinRate),
		MaxRate: int64(o.Config.Source.MaxRate),
		Total:   time.Duration(o.Config.Source.FetchDeadline), Apart: true,
	}
	if fetcher.Possible() && !source.IsLocal(p.Reference) {
		o.Log.Debug("registries are asked in processes without privileges", zap.Int("landlock", fetcher.Landlock()))
	}
	if p.Reference == o.Config.Source.Image {
		options.Mirrors = o.Config.Source.Mirrors
	}
	options.Warn = func(err error) { o.warn(p, err.Error()) }
	p.Source, err = source.Open(p.Reference, options)
	return p.Source, err
}
