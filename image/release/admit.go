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

	"github.com/updatectl/updatectl/arch"
)

// ErrStale is the parent of the errors about a release or an image that is out of date.
var ErrStale = errors.New("stale")

var (
	// ErrExpired means that the release has expired.
	ErrExpired = stale("expired")
	// ErrReplayed means that a release with a larger sequence was accepted before, or another one with the same.
	ErrReplayed = stale("replayed")
	// ErrOlder means that a newer version was accepted before, although the sequence is larger or unknown.
	ErrOlder = stale("older version")
	// ErrBarrier means that the host has to apply another release first. The error is a *Barrier.
	ErrBarrier = errors.New("another release comes first")
	// ErrIncompatible means that the release has nothing for this host.
	ErrIncompatible = errors.New("not compatible with this host")
	// ErrStream means that the release is of another stream than the one that the host follows. It is an ErrIncompatible.
	ErrStream error = &refusal{"of another stream", ErrIncompatible}
)

// refusal is an error with a text of its own and one of the classes above.
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

// Barrier says which version a host has to apply first.
type Barrier struct {
	Release string // the version of the release
	Version string // the version to apply first
	Running string
}

// Error names the versions.
func (b *Barrier) Error() string {
	runs := b.Running
	if runs == "" {
		runs = "an unknown version"
	}
	const text = "release %s is for hosts of version %s or newer, and this one runs %s: it goes through %s first"
	return fmt.Sprintf(text, b.Release, b.Version, runs, b.Version)
}

// Unwrap makes it an ErrBarrier.
func (b *Barrier) Unwrap() error { return ErrBarrier }

// ClockTolerance is how far the clock may go back before that is reported. Time synchronisation corrects seconds; an
// empty battery costs years.
const ClockTolerance = 10 * time.Minute

// Mark is what a host records about the last release that it accepted.
type Mark struct {
	// Sequence is 0 on a host that follows images without a release.
	Sequence int64         `json:"sequence,omitempty"`
	Version  string        `json:"version,omitempty"`
	Digest   digest.Digest `json:"digest,omitempty"`
}

// Facts are what Admit decides by.
type Facts struct {
	// Now is the time by the clock of the host.
	Now time.Time
	// Seen is the latest time that is known to have passed, from the clock or from verified evidence.
	Seen time.Time
	// Mark is the last release that was accepted; the zero value means none.
	Mark Mark
	// Running is the version that is booted, "" if unknown. Fresh means that no image has run here yet, so that
	// barriers do not apply.
	Running string
	Fresh   bool
	// Platform is that of the host, Compatible its machine class, "" if it has none.
	Platform   ocispec.Platform
	Compatible string
	// Stream is the stream that the host follows, "" for any.
	Stream string
	// Systemd is the version of the host's systemd, 0 if it has none.
	Systemd int
	// AllowDowngrade skips the check of the order, and no other.
	AllowDowngrade bool
}

// ClockBack returns how far the clock is behind the latest time seen, or 0 if that is within ClockTolerance.
func (f Facts) ClockBack() time.Duration {
	if back := f.Seen.Sub(f.Now); back > ClockTolerance {
		return back
	}
	return 0
}

// time returns the time that expiry is checked against. A clock that was set back does not make a release valid again.
func (f Facts) time() time.Time {
	if f.Seen.After(f.Now) {
		return f.Seen
	}
	return f.Now
}

// Admit decides whether a host accepts the release, and returns the image for the host. The image has no digest if the
// release lists live patches only: then the root does not change. The error is an ErrStale, an ErrBarrier or an
// ErrIncompatible.
func (r *Release) Admit(f Facts) (Image, error) {
	if err := r.checkStream(f); err != nil {
		return Image{}, err
	}
	if now := f.time(); !now.Before(r.Expires) {
		text := ""
		if f.ClockBack() > 0 {
			text = fmt.Sprintf(" (the clock says %s, but %s has already passed)", stamp(f.Now), stamp(f.Seen))
		}
		return Image{}, refuse(ErrExpired, "release %s, sequence %d, expired at %s%s", r.Version, r.Sequence,
			stamp(r.Expires), text)
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
	i, err := r.selectImage(f)
	if err != nil {
		return Image{}, err
	}
	return i, i.checkSystemd(f)
}

// checkStream refuses a release of another stream than the host follows, whatever else it says: the same key may have
// signed both. The error is an ErrStream.
func (r *Release) checkStream(f Facts) error {
	switch {
	case f.Stream == "" || r.Stream == f.Stream:
		return nil
	case r.Stream == "":
		return refuse(ErrStream, "release %s names no stream, and this host follows the stream %s", r.Version, f.Stream)
	}
	return refuse(ErrStream, "release %s is of the stream %s, and this host follows %s", r.Version, r.Stream, f.Stream)
}

// CheckImageStream refuses an image on its own, which names no stream, on a host that follows one. The error is an
// ErrStream.
func CheckImageStream(f Facts) error {
	if f.Stream == "" {
		return nil
	}
	return refuse(ErrStream, "this is an image outside a release, and this host follows the stream %s", f.Stream)
}

// Order compares the release with the last one that was accepted. The sequence decides, but the version must not
// contradict it, and there must be only one release for each sequence. The error is an ErrReplayed or an ErrOlder.
func (r *Release) Order(m Mark) error {
	if m.Sequence == 0 {
		return nil
	}
	newer := Compare(r.Version, m.Version)
	switch {
	case r.Sequence < m.Sequence && newer > 0:
		return refuse(ErrReplayed,
			"release %s has the sequence %d, and sequence %d (version %s) was accepted before: version and sequence "+
				"contradict each other", r.Version, r.Sequence, m.Sequence, m.Version)
	case r.Sequence < m.Sequence:
		return refuse(ErrReplayed, "release %s has the sequence %d, and sequence %d (version %s) was accepted before",
			r.Version, r.Sequence, m.Sequence, m.Version)
	case r.Sequence == m.Sequence && r.Digest != m.Digest:
		return refuse(ErrReplayed,
			"release %s is not the one with the sequence %d that was accepted before (version %s, %s)", r.Version,
			r.Sequence, m.Version, m.Digest)
	case newer < 0:
		return refuse(ErrOlder,
			"release %s has the sequence %d, but its version is older than %s, which was accepted with sequence %d",
			r.Version, r.Sequence, m.Version, m.Sequence)
	}
	return nil
}

// OrderImage compares an image without a release with what was accepted before. Only ordered versions are compared,
// because nothing else says which of two images is older. The error is an ErrReplayed or an ErrOlder.
func OrderImage(version string, m Mark) error {
	switch {
	case m.Sequence > 0:
		return refuse(ErrReplayed,
			"this is an image outside a release, and this host follows releases (the last one has the sequence %d, "+
				"version %s): nothing says whether the image is newer", m.Sequence, m.Version)
	case Ordered(version) && Ordered(m.Version) && Compare(version, m.Version) < 0:
		return refuse(ErrOlder, "the image has version %s, and version %s was accepted before", version, m.Version)
	}
	return nil
}

// For reports whether an image is for machines of this platform and class.
func (i Image) For(platform ocispec.Platform, class string) bool {
	return platforms.OnlyStrict(platform).Match(*i.Descriptor.Platform) && i.suits(class)
}

// suits reports whether an image is for machines of this class.
func (i Image) suits(class string) bool { return i.Compatible == "" || i.Compatible == class }

// selectImage selects the image by platform and machine class. An image for the class of the machine is preferred to
// one for all classes.
func (r *Release) selectImage(f Facts) (Image, error) {
	match := platforms.OnlyStrict(f.Platform)
	best := -1
	var classes, others []string
	for n, i := range r.Images {
		p := *i.Descriptor.Platform
		switch {
		case !match.Match(p):
			others = append(others, arch.Platform(p))
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
		return Image{}, refuse(ErrIncompatible,
			"release %s is for the machine classes %s, and this host has none configured", r.Version,
			enumerate(classes))
	case len(classes) > 0:
		return Image{}, refuse(ErrIncompatible,
			"release %s is for the machine classes %s, and this host is of the class %s", r.Version,
			enumerate(classes), f.Compatible)
	case len(others) == 0:
		return Image{}, refuse(ErrIncompatible, "release %s has no image and no live patch", r.Version)
	}
	return Image{}, refuse(ErrIncompatible, "release %s is for %s, and this host is %s", r.Version, enumerate(others),
		arch.Platform(f.Platform))
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
		return refuse(ErrIncompatible, "the image needs systemd %d or newer on the host, and none was found",
			i.SystemdMin)
	}
	return refuse(ErrIncompatible, "the image needs systemd %d or newer on the host, which runs %d", i.SystemdMin,
		f.Systemd)
}

// enumerate joins names, each once, and at most a few.
func enumerate(names []string) string {
	const shown = 8
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if more := len(names) - shown; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), more)
	}
	return strings.Join(names, ", ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
