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

// The artifact types of what is published.
const (
	// ArtifactType is that of a release, which is an index.
	ArtifactType = "application/vnd.updatectl.release.v1"
	// LivePatchType is that of a live patch: a manifest whose only layer is the kernel module.
	LivePatchType = "application/vnd.updatectl.livepatch.v1"
	// DeltaType is that of a delta, in the layout of containers/oci-delta.
	DeltaType = "application/vnd.io.github.containers.oci-delta.v1"

	// family starts the artifact types of releases in all formats.
	family = "application/vnd.updatectl.release."
)

// prefix starts the names of all annotations of updatectl.
const prefix = "dev.updatectl."

// The annotations of the index.
const (
	AnnotationVersion    = prefix + "version"
	AnnotationSequence   = prefix + "sequence"
	AnnotationStream     = prefix + "stream"
	AnnotationExpires    = prefix + "expires"
	AnnotationRollout    = prefix + "rollout"
	AnnotationMinVersion = prefix + "min-version"
	AnnotationNotes      = prefix + "notes"
)

// The annotations of the descriptor of an image, of a live patch, or of both.
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

// The bounds of a release. Exceeding one is an error; nothing is truncated.
const (
	// MaxEntries bounds the entries of a release. A fleet of ten machine classes on three architectures with a hundred
	// live patches has 130.
	MaxEntries = 1024
	// MaxSequence is the largest integer that every JSON reader represents exactly.
	MaxSequence = 1<<53 - 1
	// MaxNotes bounds the notes, in bytes. People read them on a terminal.
	MaxNotes = 16 << 10
	// maxWord bounds versions, kernel releases and machine classes, in bytes. The fields of uname(2) have 64.
	maxWord = 64
	// maxFixes bounds the fixes of one image or live patch. The largest cumulative live patches have 400.
	maxFixes = 4096
	// maxSystemd bounds versions of systemd, which grow by two a year.
	maxSystemd = 99999
)

var (
	versionForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.~^+_-]*$`)
	kernelForm  = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.~+_-]*$`)
	classForm   = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.,:/+_-]*$`)
	moduleForm  = regexp.MustCompile(`^[0-9A-Za-z_]+$`) // as in /sys/module, where "-" in the name of a file is "_"
	buildIDForm = regexp.MustCompile(`^([0-9a-f]{2}){8,32}$`)
	fixForm     = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,19}$`)
	numberForm  = regexp.MustCompile(`^[1-9][0-9]*$`)
)

// fields reads annotations and collects the errors.
type fields struct {
	values map[string]string
	errs   []error
}

// required reads an annotation that must exist.
func required[T any](f *fields, name string, parse func(string) (T, error)) T {
	if _, ok := f.values[name]; !ok {
		f.errs = append(f.errs, fmt.Errorf("%s is missing", name))
	}
	return optional(f, name, parse)
}

// optional reads an annotation, and returns the zero value if it does not exist.
func optional[T any](f *fields, name string, parse func(string) (T, error)) (v T) {
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

// err returns an error with everything that is wrong, or nil. of names what has the annotations.
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

// excerpt quotes the beginning of a text from outside.
func excerpt(text string) string {
	const shown = 40
	if len(text) > shown {
		text = text[:shown] + "…"
	}
	return strconv.QuoteToASCII(text)
}

// word returns a parser for names of a form.
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

// ParseClass checks a machine class, and returns it.
func ParseClass(text string) (string, error) {
	return word(classForm, "a machine class: letters, digits and . , : / + _ -,")(text)
}

// ParseStream checks the name of a stream, and returns it.
func ParseStream(text string) (string, error) {
	return word(classForm, "the name of a stream: letters, digits and . , : / + _ -,")(text)
}

// number returns a parser for decimal numbers from 1 to limit, without sign or leading zeros.
func number(limit int64) func(string) (int64, error) {
	return func(text string) (int64, error) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n > limit || !numberForm.MatchString(text) {
			return 0, fmt.Errorf("it is not a number from 1 to %d", limit)
		}
		return n, nil
	}
}

// parseTime reads a time in the form of RFC 3339, strictly.
func parseTime(text string) (t time.Time, err error) {
	if err := t.UnmarshalText([]byte(text)); err != nil || t.Year() < 1970 {
		return time.Time{}, errors.New("it is not a time in the form of RFC 3339, such as 2027-01-31T12:00:00Z")
	}
	return t.UTC(), nil
}

// parseNotes reads text that is safe to print on a terminal.
func parseNotes(text string) (string, error) {
	if len(text) > MaxNotes {
		return "", fmt.Errorf("it has %d bytes, more than %d", len(text), MaxNotes)
	}
	return text, printable(text)
}

// parseKernelVersion reads a kernel version as uname -v prints it.
func parseKernelVersion(text string) (string, error) {
	if text == "" || len(text) > maxWord || strings.ContainsAny(text, "\n\t") {
		return "", fmt.Errorf("it is not what uname -v prints: a line of at most %d bytes", maxWord)
	}
	return text, printable(text)
}

// printable refuses control characters, which could change what a terminal shows.
func printable(text string) error {
	for _, r := range text {
		if r == unicode.ReplacementChar || !unicode.IsGraphic(r) && r != '\n' && r != '\t' {
			return fmt.Errorf("it contains the unprintable character %U", r)
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
			return nil, fmt.Errorf("it lists %s twice", fix)
		}
		fixes[i], seen[fix] = fix, true
	}
	return fixes, nil
}
