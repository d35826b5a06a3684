package release

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/machine"
)

// ErrStale is the parent of the refusals of what was published once and is not, or no longer, the present state.
var ErrStale = errors.New("stale")

var (
	// ErrExpired is a release that its publisher no longer stands behind.
	ErrExpired = stale("expired")
	// ErrReplayed is a release with a smaller sequence than one that was accepted before, or another with the same.
	ErrReplayed = stale("replayed")
	// ErrOlder is a version that is older than the one accepted before, although its sequence is larger or unknown.
	ErrOlder = stale("older version")
	// ErrBarrier is a release that this host may take after another one; the error is a *Barrier.
	ErrBarrier = errors.New("another release comes first")
	// ErrIncompatible is a release with nothing for this host.
	ErrIncompatible = errors.New("not compatible with this host")
)

// refusal is an error whose text is a sentence and whose class is one of the above.
type refusal struct {
	text  string
	class error
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.class }

func stale(text string) error { return &refusal{text, ErrStale} }

func refuse(class error, format string, args ...any) error {
	return &refusal{fmt.Sprintf(format, args...), class}
}

// Barrier says which version a host has to go through first.
type Barrier struct {
	Release string // the one that was asked for
	Version string // the one that comes first
	Running string
}

// Error names both versions.
func (b *Barrier) Error() string {
	runs := b.Running
	if runs == "" {
		runs = "an unknown version"
	}
	return fmt.Sprintf("release %s is for hosts of version %s or newer, and this one runs %s: it goes through %s first", b.Release, b.Version, runs, b.Version)
}

// Unwrap makes it an ErrBarrier.
func (b *Barrier) Unwrap() error { return ErrBarrier }

// ClockTolerance is how far a clock may go back without a word: time synchronisation corrects seconds, a battery that
// is empty costs years.
const ClockTolerance = 10 * time.Minute

// Mark is what a host remembers of the last release it accepted.
type Mark struct {
	// Sequence is 0 on a host that follows images on their own.
	Sequence int64         `json:"sequence,omitempty"`
	Version  string        `json:"version,omitempty"`
	Digest   digest.Digest `json:"digest,omitempty"`
}

// Facts are what the decision depends on.
type Facts struct {
	// Now is the clock.
	Now time.Time
	// Seen is the latest time that is known to have passed, by the clock or by verified evidence.
	Seen time.Time
	// Mark is the last release that was accepted, the zero value for none.
	Mark Mark
	// Running is the version that runs, "" when it is not known. Fresh tells that no image ran here yet: then there is
	// nothing to go through first.
	Running string
	Fresh   bool
	// Platform and Compatible are the machine and its class; "" is a machine without one.
	Platform   ocispec.Platform
	Compatible string
	// Systemd is the version of the host's systemd, 0 when it has none.
	Systemd int
	// AllowDowngrade waives the order of releases, and nothing else.
	AllowDowngrade bool
}

// ClockBack tells by how much the clock is behind the latest time seen; 0 when that is within tolerance.
func (f Facts) ClockBack() time.Duration {
	if back := f.Seen.Sub(f.Now); back > ClockTolerance {
		return back
	}
	return 0
}

// time is the time that expiry is judged by: a clock that was set back does not make a release fresh again.
func (f Facts) time() time.Time {
	if f.Seen.After(f.Now) {
		return f.Seen
	}
	return f.Now
}

// Admit decides whether a host takes the release, and which image. The image has no digest when the release lists live
// patches and no image at all: it leaves the root that runs as it is.
func (r *Release) Admit(f Facts) (Image, error) {
	if now := f.time(); !now.Before(r.Expires) {
		text := ""
		if f.ClockBack() > 0 {
			text = fmt.Sprintf(" (the clock says %s, but %s has passed before)", stamp(f.Now), stamp(f.Seen))
		}
		return Image{}, refuse(ErrExpired, "release %s, sequence %d, expired at %s%s", r.Version, r.Sequence, stamp(r.Expires), text)
	}
	if err := r.Order(f.Mark); err != nil && !f.AllowDowngrade {
		return Image{}, err
	}
	if r.MinVersion != "" && !f.Fresh && Compare(f.Running, r.MinVersion) < 0 {
		return Image{}, &Barrier{Release: r.Version, Version: r.MinVersion, Running: f.Running}
	}
	if len(r.Images) == 0 && len(r.LivePatches) > 0 {
		return Image{}, nil
	}
	i, err := r.pick(f)
	if err != nil {
		return Image{}, err
	}
	return i, i.checkSystemd(f)
}

// Order compares the release with the last one that was accepted. The sequence decides; a version that contradicts it
// is refused, whichever of the two goes backwards, and a sequence stands for one release only.
func (r *Release) Order(m Mark) error {
	if m.Sequence == 0 {
		return nil
	}
	newer := Compare(r.Version, m.Version)
	switch {
	case r.Sequence < m.Sequence && newer > 0:
		return refuse(ErrReplayed, "release %s has the sequence %d, and sequence %d was accepted before, which was version %s: version and sequence contradict each other", r.Version, r.Sequence, m.Sequence, m.Version)
	case r.Sequence < m.Sequence:
		return refuse(ErrReplayed, "release %s has the sequence %d, and sequence %d (version %s) was accepted before", r.Version, r.Sequence, m.Sequence, m.Version)
	case r.Sequence == m.Sequence && r.Digest != m.Digest:
		return refuse(ErrReplayed, "release %s is not the one with the sequence %d that was accepted before (version %s, %s)", r.Version, r.Sequence, m.Version, m.Digest)
	case newer < 0:
		return refuse(ErrOlder, "release %s has the sequence %d, but its version is older than %s, which was accepted with sequence %d", r.Version, r.Sequence, m.Version, m.Sequence)
	}
	return nil
}

// OrderImage compares an image on its own with what was accepted before. Only versions that have an order count, as
// nothing else says which of two images is older.
func OrderImage(version string, m Mark) error {
	switch {
	case m.Sequence > 0:
		return refuse(ErrReplayed, "this is an image outside a release, and this host follows releases (the last one has the sequence %d, version %s): nothing says whether it is newer", m.Sequence, m.Version)
	case Ordered(version) && Ordered(m.Version) && Compare(version, m.Version) < 0:
		return refuse(ErrOlder, "the image has version %s, and version %s was accepted before", version, m.Version)
	}
	return nil
}

// For tells whether an image is for a machine of this platform and class.
func (i Image) For(platform ocispec.Platform, class string) bool {
	return platforms.OnlyStrict(platform).Match(*i.Descriptor.Platform) && i.suits(class)
}

// suits tells whether an image is for a machine of this class.
func (i Image) suits(class string) bool { return i.Compatible == "" || i.Compatible == class }

// pick chooses by platform and machine class. An image for the class of the machine is better than one for all.
func (r *Release) pick(f Facts) (Image, error) {
	match := platforms.OnlyStrict(f.Platform)
	best := -1
	var classes, others []string
	for n, i := range r.Images {
		p := *i.Descriptor.Platform
		switch {
		case !match.Match(p):
			others = append(others, machine.Platform(p))
		case !i.suits(f.Compatible):
			classes = append(classes, i.Compatible)
		case best < 0 || better(match, i, r.Images[best]):
			best = n
		}
	}
	switch {
	case best >= 0:
		return r.Images[best], nil
	case len(classes) > 0 && f.Compatible == "":
		return Image{}, refuse(ErrIncompatible, "release %s is for the machine classes %s, and this host has none configured", r.Version, list(classes))
	case len(classes) > 0:
		return Image{}, refuse(ErrIncompatible, "release %s is for the machine classes %s, and this host is of the class %s", r.Version, list(classes), f.Compatible)
	case len(others) == 0:
		return Image{}, refuse(ErrIncompatible, "release %s has no image and no live patch", r.Version)
	}
	return Image{}, refuse(ErrIncompatible, "release %s is for %s, and this host is %s", r.Version, list(others), machine.Platform(f.Platform))
}

func better(match platforms.MatchComparer, a, b Image) bool {
	if (a.Compatible != "") != (b.Compatible != "") {
		return a.Compatible != ""
	}
	return match.Less(*a.Descriptor.Platform, *b.Descriptor.Platform)
}

func (i Image) checkSystemd(f Facts) error {
	switch {
	case f.Systemd >= i.SystemdMin:
		return nil
	case f.Systemd == 0:
		return refuse(ErrIncompatible, "the image needs systemd %d or newer on the host, and none was found", i.SystemdMin)
	}
	return refuse(ErrIncompatible, "the image needs systemd %d or newer on the host, which runs %d", i.SystemdMin, f.Systemd)
}

// list names a few things, each once.
func list(names []string) string {
	const shown = 8
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if more := len(names) - shown; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), more)
	}
	return strings.Join(names, ", ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
