package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/verify"
)

// ErrElsewhere means that the content of a blob was wrong, and that there is another place to ask. The place that
// served it is not asked again, so the blob can be read again from its start, and that ends.
var ErrElsewhere = errors.New("another place may have it")

// maxMirrors bounds the mirrors, because each place gets a share of the signatures that are read.
const maxMirrors = 7

// openMirrors opens the mirrors.
func (s *Source) openMirrors(references []string, o Options) error {
	if len(references) > maxMirrors {
		return fmt.Errorf("%w: there are %d mirrors, more than %d", failure.ErrReference, len(references), maxMirrors)
	}
	s.warn = o.Warn
	if s.warn == nil {
		s.warn = func(error) {}
	}
	o.Mirrors = nil
	for _, reference := range references {
		m, err := Open(reference, o)
		if err != nil {
			return err
		}
		s.mirrors = append(s.mirrors, m)
	}
	return nil
}

// Warn passes on why something costs more than it had to. It does nothing if nobody listens.
func (s *Source) Warn(err error) { s.warn(err) }

// places returns the places to ask, in order: the source itself, its mirrors, and then those that were not reachable
// before. One that served wrong content is not asked again.
func (s *Source) places() []*Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	var answering, silent []*Source
	for _, p := range append([]*Source{s}, s.mirrors...) {
		switch {
		case p.lied != nil:
		case p.silent != nil:
			silent = append(silent, p)
		default:
			answering = append(answering, p)
		}
	}
	return append(answering, silent...)
}

// askPlaces asks one place after the other until one answers.
func (s *Source) askPlaces(question func(place *Source) error) error {
	if len(s.mirrors) == 0 {
		return question(s)
	}
	places := s.places()
	var failed error
	for i, p := range places {
		err := question(p)
		if err == nil || !othersMayHelp(err) {
			return err
		}
		s.skipPlace(p, err, i+1 < len(places))
		failed = addFailure(failed, p, err)
	}
	if failed == nil {
		return s.allLied()
	}
	return failed
}

// othersMayHelp reports whether another place may have what this one did not.
func othersMayHelp(err error) bool {
	return errors.Is(err, failure.ErrSource) || errors.Is(err, verify.ErrDigest)
}

// addFailure adds the error of a place to those of other places.
func addFailure(failed error, p *Source, err error) error {
	if failed == nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return fmt.Errorf("%w; %s: %w", failed, p, err)
}

// allLied returns the error for a source of which every place served wrong content.
func (s *Source) allLied() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all error
	for _, p := range append([]*Source{s}, s.mirrors...) {
		if p.lied != nil {
			all = addFailure(all, p, p.lied)
		}
	}
	return all
}

// skipPlace records why a place failed, and warns about it if another one is asked.
func (s *Source) skipPlace(p *Source, err error, next bool) {
	s.mu.Lock()
	switch {
	case errors.Is(err, verify.ErrDigest):
		p.lied = err
	case errors.Is(err, failure.ErrUnreachable), errors.Is(err, failure.ErrAuth):
		p.silent = err
	}
	s.mu.Unlock()
	if next {
		s.warn(fmt.Errorf("%s is skipped: %w", p, err))
	}
}

// checkPin refuses another digest than the one in the reference.
func (s *Source) checkPin(d digest.Digest) error {
	if _, pin, ok := strings.Cut(s.name, "@"); ok && digest.Digest(pin) != d {
		return fmt.Errorf("%w: it has %s instead", failure.ErrNotFound, d)
	}
	return nil
}

// candidatesEverywhere collects possible signatures from every place that answers, because images are often mirrored
// without their signatures. Each place gets a share of what is read, so that rubbish at one place does not displace
// the signatures at another. If none are found and a place did not answer, that is an error: it may have them.
func (s *Source) candidatesEverywhere(ctx context.Context, d digest.Digest) ([]verify.Candidate, error) {
	share := verify.MaxCandidates / (1 + len(s.mirrors))
	var found []verify.Candidate
	var failed error
	for _, p := range s.places() {
		if p.silent != nil {
			failed = addFailure(failed, p, p.silent)
			continue
		}
		more, err := p.candidates(ctx, d, share)
		found = append(found, more...)
		if err == nil {
			continue
		}
		if !othersMayHelp(err) {
			return nil, err
		}
		s.skipPlace(p, err, true)
		failed = addFailure(failed, p, err)
	}
	if len(found) == 0 {
		return nil, failed
	}
	return found, nil
}

// startBlob opens a blob at the first place that has it.
func (s *Source) startBlob(ctx context.Context, d ocispec.Descriptor) (*blob, error) {
	b, err := placedBlob(ctx, s, d)
	if err != nil {
		return nil, err
	}
	if err = b.connect(); err != nil {
		err = b.continueElsewhere(err)
	}
	return b, err
}

// placedBlob returns a blob of the first place, which is not asked yet.
func placedBlob(ctx context.Context, s *Source, d ocispec.Descriptor) (*blob, error) {
	if len(s.mirrors) == 0 {
		return newBlob(ctx, s, d, false)
	}
	places := s.places()
	if len(places) == 0 {
		return nil, s.allLied()
	}
	b, err := newBlob(ctx, places[0], d, false)
	if err == nil {
		b.places = s
	}
	return b, err
}

// continueElsewhere continues the blob at another place, at the same offset. The digest of the whole blob is checked
// in the end.
func (b *blob) continueElsewhere(err error) error {
	if b.places == nil {
		return err
	}
	var failed error
	for othersMayHelp(err) {
		failed = addFailure(failed, b.source, err)
		b.tried = append(b.tried, b.source)
		next := b.nextPlace()
		if next == nil && len(b.left) > 0 {
			next, b.left = b.left[0], b.left[1:]
		}
		b.places.skipPlace(b.source, err, next != nil)
		if next == nil {
			return failed
		}
		b.source = next
		b.begin()
		if err = b.connect(); err == nil {
			return nil
		}
	}
	return err
}

// nextPlace returns another place that was not asked for the rest of this blob yet, or nil.
func (b *blob) nextPlace() *Source {
	for _, p := range b.places.places() {
		if p != b.source && !slices.Contains(b.tried, p) && !slices.Contains(b.left, p) {
			return p
		}
	}
	return nil
}

// isSteady reports whether a place that serves badly must not be left: a blob of which several served parts was wrong.
func isSteady(s *Source) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.steady
}

// beSteady makes places not be left any more, and reports whether they were before.
func beSteady(s *Source) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.steady
	s.steady = true
	return !before
}

// blamePlace skips a place that served wrong content. If several places served parts, it is the first of them: a place
// that has the whole blob and works serves all of it.
func (b *blob) blamePlace(p *Source, err error) error {
	if b.places == nil {
		return err
	}
	if b.mixed && beSteady(b.places) { // any of them may have sent it
		b.places.warn(err)
		return fmt.Errorf("%w (%w)", err, ErrElsewhere)
	}
	if p == nil {
		p = b.source
	}
	b.places.skipPlace(p, err, true)
	if len(b.places.places()) == 0 {
		return b.places.allLied()
	}
	return fmt.Errorf("%s: %w (%w)", p, err, ErrElsewhere)
}
