package release

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/updatectl/updatectl/verify"
)

// Media types of what is published.
const (
	// ArtifactType is that of an index that is a release.
	ArtifactType = "application/vnd.updatectl.release.v1"
	// LivePatchType is that of a live patch: a manifest whose only layer is the kernel module.
	LivePatchType = "application/vnd.updatectl.livepatch.v1"
	// DeltaType is that of a delta, in the layout of containers/oci-delta.
	DeltaType = "application/vnd.io.github.containers.oci-delta.v1"

	// family starts the artifact type of a release in any format.
	family = "application/vnd.updatectl.release."
)

// prefix starts every annotation of ours.
const prefix = "dev.updatectl."

// Annotations of the index.
const (
	AnnotationVersion    = prefix + "version"
	AnnotationSequence   = prefix + "sequence"
	AnnotationExpires    = prefix + "expires"
	AnnotationRollout    = prefix + "rollout"
	AnnotationMinVersion = prefix + "min-version"
	AnnotationNotes      = prefix + "notes"
)

// Annotations of a descriptor in it: of an image, of a live patch, or of both.
const (
	AnnotationRootDigest    = prefix + "root.digest"
	AnnotationKernelRelease = prefix + "kernel.release"
	AnnotationCompatible    = prefix + "compatible"
	AnnotationSystemdMin    = prefix + "systemd.min"

	AnnotationKernelVersion = prefix + "kernel.version"
	AnnotationKernelBuildID = prefix + "kernel.build-id"
	AnnotationLivePatchName = prefix + "livepatch.name"
	AnnotationFixes         = prefix + "fixes"
)

// Bounds of what a release may say. More is an error, never a truncation.
const (
	// MaxEntries bounds what a release lists. A fleet of ten machine classes on three architectures with a hundred
	// live patches has 130.
	MaxEntries = 1024
	// MaxSequence is the largest number that every JSON reader keeps exact.
	MaxSequence = 1<<53 - 1
	// MaxNotes bounds the notes, which people read on a terminal.
	MaxNotes = 16 << 10
	// maxWord bounds names: versions, kernels, machine classes. uname(2) has 64 bytes, minus the last.
	maxWord = 64
	// maxFixes bounds the fixes of one live patch. A cumulative one had 400.
	maxFixes = 4096
	// maxSystemd is far from any version of systemd, which grows by two a year.
	maxSystemd = 99999
)

var (
	versionForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.~^+_-]*$`)
	kernelForm  = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.~+_-]*$`)
	classForm   = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.,:/+_-]*$`)
	moduleForm  = regexp.MustCompile(`^[0-9A-Za-z_]+$`) // as in /sys/module; "-" in a file's name is "_" there
	buildIDForm = regexp.MustCompile(`^([0-9a-f]{2}){8,32}$`)
	fixForm     = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,19}$`)
	numberForm  = regexp.MustCompile(`^[1-9][0-9]*$`)
)

// fields reads annotations and remembers what was wrong with them.
type fields struct {
	values map[string]string
	errs   []error
}

// need reads an annotation that must be there.
func need[T any](f *fields, name string, parse func(string) (T, error)) T {
	if _, ok := f.values[name]; !ok {
		f.errs = append(f.errs, fmt.Errorf("%s is missing", name))
	}
	return may(f, name, parse)
}

// may reads an annotation that may be missing; then it is the zero value.
func may[T any](f *fields, name string, parse func(string) (T, error)) (v T) {
	text, ok := f.values[name]
	if !ok {
		return v
	}
	v, err := parse(text)
	if err != nil {
		f.errs = append(f.errs, fmt.Errorf("%s is %s: %w", name, excerpt(text), err))
	}
	return v
}

// err is what was wrong with the annotations of something, nil for nothing.
func (f *fields) err(of string) error {
	if len(f.errs) == 0 {
		return nil
	}
	texts := make([]string, len(f.errs))
	for i, err := range f.errs {
		texts[i] = err.Error()
	}
	return fmt.Errorf("%w %s: %s", verify.ErrMalformed, of, strings.Join(texts, "; "))
}

// excerpt quotes the beginning of a text that came from outside.
func excerpt(text string) string {
	const shown = 40
	if len(text) > shown {
		text = text[:shown] + "…"
	}
	return strconv.QuoteToASCII(text)
}

// word reads a name of a given form.
func word(form *regexp.Regexp, what string) func(string) (string, error) {
	return func(text string) (string, error) {
		if len(text) > maxWord || !form.MatchString(text) {
			return "", fmt.Errorf("it is not %s of at most %d characters", what, maxWord)
		}
		return text, nil
	}
}

var (
	parseVersion = word(versionForm, "a version: letters, digits and . ~ ^ + _ -,")
	parseKernel  = word(kernelForm, "the release of a kernel")
	parseModule  = word(moduleForm, "the name of a kernel module")
	parseBuildID = word(buildIDForm, "a build id in lower-case hexadecimal digits")
)

// ParseClass reads a machine class.
func ParseClass(text string) (string, error) {
	return word(classForm, "a machine class: letters, digits and . , : / + _ -,")(text)
}

// number reads a decimal number without sign or leading zeros.
func number(limit int64) func(string) (int64, error) {
	return func(text string) (int64, error) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n > limit || !numberForm.MatchString(text) {
			return 0, fmt.Errorf("it is not a number from 1 to %d", limit)
		}
		return n, nil
	}
}

// parseTime reads RFC 3339, and nothing that only resembles it.
func parseTime(text string) (t time.Time, err error) {
	if err := t.UnmarshalText([]byte(text)); err != nil || t.Year() < 1970 {
		return time.Time{}, errors.New("it is not a time in the form of RFC 3339, as in 2027-01-31T12:00:00Z")
	}
	return t.UTC(), nil
}

// parseNotes takes text that can go to a terminal as it is.
func parseNotes(text string) (string, error) {
	if len(text) > MaxNotes {
		return "", fmt.Errorf("it has %d bytes, more than %d", len(text), MaxNotes)
	}
	return text, printable(text)
}

// parseKernelVersion reads what uname -v says.
func parseKernelVersion(text string) (string, error) {
	if text == "" || len(text) > maxWord || strings.ContainsAny(text, "\n\t") {
		return "", fmt.Errorf("it is not what uname -v says, a line of at most %d bytes", maxWord)
	}
	return text, printable(text)
}

// printable refuses control characters: they could make a terminal say something else.
func printable(text string) error {
	for _, r := range text {
		if r == unicode.ReplacementChar || !unicode.IsGraphic(r) && r != '\n' && r != '\t' {
			return fmt.Errorf("it has the unprintable character %U", r)
		}
	}
	return nil
}

// parseFixes reads a list of CVE numbers, separated by commas.
func parseFixes(text string) ([]string, error) {
	fixes := strings.Split(text, ",")
	if len(fixes) > maxFixes {
		return nil, fmt.Errorf("it has %d fixes, more than %d", len(fixes), maxFixes)
	}
	seen := map[string]bool{}
	for i, fix := range fixes {
		fix = strings.TrimSpace(fix)
		if !fixForm.MatchString(fix) {
			return nil, fmt.Errorf("%s is not a CVE number", excerpt(fix))
		}
		if seen[fix] {
			return nil, fmt.Errorf("%s comes twice", fix)
		}
		fixes[i], seen[fix] = fix, true
	}
	return fixes, nil
}
