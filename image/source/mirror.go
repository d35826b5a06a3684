package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
)

// ErrElsewhere is part of the error of a blob whose content was wrong, when there is another place to ask. The one
// that served it is not asked again, so reading the blob anew, from its start, comes to an end.
var ErrElsewhere = errors.New("another place may have it")

// maxMirrors bounds the places to ask; each has a share of the signatures that are looked at.
const maxMirrors = 7

// openMirrors opens the places to ask after the first one.
func (s *Source) openMirrors(references []string, o Options) error {
	if len(references) > maxMirrors {
		return fmt.Errorf("%w: %d mirrors, at most %d are asked", ErrReference, len(references), maxMirrors)
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

// places returns where to ask, in this order: what is configured first, then its mirrors, and last those that were not
// reachable before. One that served wrong content is not asked any more.
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

// ask asks one place after the other until one has the answer.
func (s *Source) ask(question func(place *Source) error) error {
	if len(s.mirrors) == 0 {
		return question(s)
	}
	places := s.places()
	var failed error
	for i, p := range places {
		err := question(p)
		if err == nil || !passable(err) {
			return err
		}
		s.passOver(p, err, i+1 < len(places))
		failed = also(failed, p, err)
	}
	if failed == nil {
		return s.lies()
	}
	return failed
}

// passable tells whether another place may do better.
func passable(err error) bool { return errors.Is(err, ErrSource) || errors.Is(err, verify.ErrDigest) }

// also adds what went wrong at a place to what did at others.
func also(failed error, p *Source, err error) error {
	if failed == nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return fmt.Errorf("%w; %s: %w", failed, p, err)
}

// lies is the error when every place served wrong content.
func (s *Source) lies() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all error
	for _, p := range append([]*Source{s}, s.mirrors...) {
		if p.lied != nil {
			all = also(all, p, p.lied)
		}
	}
	return all
}

// passOver remembers what a place did. The operator hears of it when the next one is asked.
func (s *Source) passOver(p *Source, err error, next bool) {
	s.mu.Lock()
	switch {
	case errors.Is(err, verify.ErrDigest):
		p.lied = err
	case errors.Is(err, ErrUnreachable), errors.Is(err, ErrAuth):
		p.silent = err
	}
	s.mu.Unlock()
	if next {
		s.warn(fmt.Errorf("%s is passed over: %w", p, err))
	}
}

// pinned refuses what a mirror's tag stands for when the digest is configured.
func (s *Source) pinned(d digest.Digest) error {
	if _, pin, ok := strings.Cut(s.name, "@"); ok && digest.Digest(pin) != d {
		return fmt.Errorf("%w: what it has is %s", ErrNotFound, d)
	}
	return nil
}

// everywhere collects what may be signatures from every place that answers: an image is often mirrored without. Each
// has a share of what is looked at, so that rubbish at one does not crowd out what another has. If none is found, a
// place that did not answer may have them.
func (s *Source) everywhere(ctx context.Context, d digest.Digest) ([]verify.Candidate, error) {
	share := verify.MaxCandidates / (1 + len(s.mirrors))
	var found []verify.Candidate
	var failed error
	for _, p := range s.places() {
		if p.silent != nil {
			failed = also(failed, p, p.silent)
			continue
		}
		more, err := p.candidates(ctx, d, share)
		found = append(found, more...)
		if err == nil {
			continue
		}
		if !passable(err) {
			return nil, err
		}
		s.passOver(p, err, true)
		failed = also(failed, p, err)
	}
	if len(found) == 0 {
		return nil, failed
	}
	return found, nil
}

// startBlob opens a blob at the first place that has it.
func (s *Source) startBlob(ctx context.Context, d ocispec.Descriptor) (*blob, error) {
	if len(s.mirrors) == 0 {
		return s.newBlob(ctx, d, false)
	}
	places := s.places()
	if len(places) == 0 {
		return nil, s.lies()
	}
	b, err := newBlob(ctx, places[0], d, false)
	if err != nil {
		return nil, err
	}
	b.places = s
	if err = b.connect(); err != nil {
		err = b.elsewhere(err)
	}
	return b, err
}

// elsewhere goes on with the blob at the next place, from where it is: the digest of all of it decides in the end.
func (b *blob) elsewhere(err error) error {
	if b.places == nil {
		return err
	}
	var failed error
	for passable(err) {
		failed = also(failed, b.source, err)
		b.tried = append(b.tried, b.source)
		next := b.untried()
		b.places.passOver(b.source, err, next != nil)
		if next == nil {
			return failed
		}
		b.source, b.broken = next, 0
		if err = b.connect(); err == nil {
			return nil
		}
	}
	return err
}

// untried returns the next place for this blob, nil if all were asked.
func (b *blob) untried() *Source {
	for _, p := range b.places.places() {
		if !slices.Contains(b.tried, p) {
			return p
		}
	}
	return nil
}

// blame passes a place over that served wrong content. When several had a part in it, that is the first: one that is
// whole and honest never is the first of several.
func (b *blob) blame(p *Source, err error) error {
	if b.places == nil {
		return err
	}
	if p == nil {
		p = b.source
	}
	b.places.passOver(p, err, true)
	if len(b.places.places()) == 0 {
		return b.places.lies()
	}
	return fmt.Errorf("%s: %w (%w)", p, err, ErrElsewhere)
}
