package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/image/release"
)

// releaseAnswer is the answer of the commands that change a release in JSON.
type releaseAnswer struct {
	Reference string        `json:"reference"`
	Digest    digest.Digest `json:"digest"`
	*release.Release
}

func newRelease(out *output) *cobra.Command {
	add := usage.Group(&cobra.Command{
		Use:   "add",
		Short: "Add an image or a delta to a release that is not signed yet",
		Long: `Add an image or a delta to a release that is not signed yet. Live patches are
added with "releasectl livepatch add".`,
	}, newAddImage(out), newAddDelta(out))
	return usage.Group(&cobra.Command{
		Use:   "release",
		Short: "Make a release, which lists images, live patches and deltas",
		Long: `Make a release: an OCI index that lists the images, live patches and deltas that
belong together, says in which order releases follow each other and until when
this one is valid, and is signed as a whole.

A release is made in an OCI layout. Begin it with "new", fill it with "add" and
with "releasectl livepatch add", then sign it, then push it. Every addition
makes another index with another digest, so the signature comes last. A signed
release does not change any more: the next one is another release, with a larger
sequence.`,
		Example: `  releasectl release new --version 2026.11.1 --sequence 42 --expires 720h \
    oci:layout:stable
  releasectl release add image oci:layout:stable oci:layout:amd64
  releasectl sign --key cosign.key oci:layout:stable
  releasectl push oci:layout:stable registry.example.org/os/server:stable`,
	}, newReleaseNew(out), add, newReleaseShow(out))
}

func newReleaseNew(out *output) *cobra.Command {
	var h release.Header
	var expires string
	var r rolloutFlags
	c := &cobra.Command{
		Use:   "new [flags] [oci:]DIR[:TAG]",
		Short: "Begin a release",
		Long: `Begin a release in an OCI layout directory, which is made if it does not exist.
The tag is "latest" if none is given. --version, --sequence and --expires are
required. A release that had the tag before is removed if it is not signed;
anything else stays in the layout.

Hosts accept a release only if its sequence is not smaller and its version not
older than those of the last one they accepted. Versions are ordered as by
"systemd-analyze compare-versions". No host accepts a release after --expires:
publish it again before, with a larger sequence.

--pause and --stop mark a release. To mark one that is out, publish it again as
the same version with a larger sequence: hosts see that at their next check.`,
		Example: `  releasectl release new --version 2026.11.1 --sequence 42 --expires 720h \
    oci:layout:stable`,
		Args: usage.Arguments("the layout to write to"),
		RunE: func(c *cobra.Command, args []string) error {
			err := required(c, "version", "sequence", "expires")
			if err != nil {
				return err
			}
			if h.Expires, err = expiry(expires, time.Now()); err != nil {
				return &usageError{err}
			}
			if h.Rollout, err = r.rollout(time.Now()); err != nil {
				return &usageError{err}
			}
			reference, _, _, err := inLayout(args[0])
			if err != nil {
				return err
			}
			d, err := publish.NewRelease(c.Context(), reference, h)
			if err != nil {
				return err
			}
			if d.Replaced {
				out.talk("warning: what had the tag of %s is signed: it stays in the layout without a tag", reference)
			}
			if !h.Expires.After(time.Now()) {
				out.talk("warning: the release has already expired: no host accepts it")
			}
			return out.drafted("new", reference, d)
		},
	}
	f := c.Flags()
	f.StringVar(&h.Version, "version", "", "`VERSION` of the release, never older than the one before")
	f.Int64Var(&h.Sequence, "sequence", 0, "number `N` of the release, larger than that of the one before")
	f.StringVar(&expires, "expires", "", "`TIME` after which hosts refuse it: 2027-01-31T12:00:00Z, or 720h from now")
	f.StringVar(&h.Stream, "stream", "", "`NAME` of the stream that it belongs to; hosts may refuse all others")
	f.StringVar(&h.MinVersion, "min-version", "", "barrier: hosts older than `VERSION` apply that one first")
	f.StringVar(&h.Notes, "notes", "", "`TEXT` for those who run the hosts")
	r.add(c)
	return c
}

// rolloutFlags are what the command line says about the rollout.
type rolloutFlags struct{ text, paused, stopped string }

func (f *rolloutFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.text, "rollout", "", "`JSON` with start, duration, and steps in percent of the hosts")
	c.Flags().StringVar(&f.paused, "pause", "", "no further host begins for now; `REASON` is shown on hosts")
	c.Flags().StringVar(&f.stopped, "stop", "", "no host takes the release any more; `REASON` is shown on hosts")
}

// rollout returns the rollout of a release, nil for none. A mark alone is enough: then it does not matter when hosts
// would begin.
func (f rolloutFlags) rollout(now time.Time) (*release.Rollout, error) {
	if f == (rolloutFlags{}) {
		return nil, nil
	}
	r := &release.Rollout{Start: now.UTC().Truncate(time.Second)}
	if f.text != "" {
		var err error
		if r, err = release.ParseRollout(f.text); err != nil {
			return nil, fmt.Errorf("--rollout: %w", err)
		}
	}
	r.Paused, r.Stopped = cmp.Or(f.paused, r.Paused), cmp.Or(f.stopped, r.Stopped)
	if r.Paused != "" && r.Stopped != "" {
		return nil, errors.New("a release is either paused or stopped, not both")
	}
	return r, nil
}

// expiry reads a time, or a duration from now.
func expiry(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(d).UTC().Truncate(time.Second), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("--expires is %q: write a time such as 2027-01-31T12:00:00Z, or a duration such as 720h",
			text)
	}
	return t.UTC(), nil
}

func newAddImage(out *output) *cobra.Command {
	var n publish.NewImage
	var o publish.Options
	c := &cobra.Command{
		Use:   "image [flags] [oci:]DIR[:TAG] IMAGE",
		Short: "Add an image, or all images of an index, and copy them",
		Long: `Add an image to a release in an OCI layout, and copy it there. IMAGE is
host/repository:TAG or oci:DIR:TAG. Its platform is read from its configuration.
All images of an index are added.

With --seal, all layers are read and the release records the digest of the root
that the image becomes. A host that gets another digest refuses the image.`,
		Example: `  releasectl release add image --seal oci:layout:stable oci:layout:amd64`,
		Args:    usage.Arguments("the release to add to", "the image to add"),
		RunE: func(c *cobra.Command, args []string) error {
			reference, _, _, err := inLayout(args[0])
			if err != nil {
				return err
			}
			d, err := publish.AddImage(c.Context(), reference, args[1], n, o)
			if err != nil {
				return err
			}
			return out.drafted("add", reference, d)
		},
	}
	f := c.Flags()
	f.StringVar(&n.Compatible, "compatible", "", "machine `CLASS` that it is for (default: every machine)")
	f.StringVar(&n.KernelRelease, "kernel-release", "", "`RELEASE` of the kernel in it, as in uname -r")
	f.StringVar(&n.KernelVersion, "kernel-version", "",
		"`VERSION` of that kernel, as in uname -v: --fixes then counts for this build only (default with --seal: "+
			"read from the kernel)")
	f.IntVar(&n.SystemdMin, "systemd-min", 0, "oldest systemd `VERSION` that a host needs to switch to it")
	f.StringSliceVar(&n.Fixes, "fixes", nil,
		"CVE numbers that the kernel of --kernel-release fixes, a `LIST` with commas")
	f.BoolVar(&n.Seal, "seal", false, "record the digest of the root that it becomes")
	plainHTTP(c, &o)
	return c
}

func newAddDelta(out *output) *cobra.Command {
	var o publish.Options
	c := &cobra.Command{
		Use:   "delta [flags] [oci:]DIR[:TAG] DELTA",
		Short: "Add a delta, and copy it to the layout",
		Long: `Add a delta to a release in an OCI layout, and copy it there. DELTA is
host/repository:TAG or oci:DIR:TAG of an artifact of the type
` + release.DeltaType + `.`,
		Args: usage.Arguments("the release to add to", "the delta to add"),
		RunE: func(c *cobra.Command, args []string) error {
			reference, _, _, err := inLayout(args[0])
			if err != nil {
				return err
			}
			d, err := publish.AddDelta(c.Context(), reference, args[1], o)
			if err != nil {
				return err
			}
			return out.drafted("add", reference, d)
		},
	}
	plainHTTP(c, &o)
	return c
}

func newReleaseShow(out *output) *cobra.Command {
	var o publish.Options
	c := &cobra.Command{
		Use:   "show [flags] REFERENCE",
		Short: "Show a release",
		Long: `Show the release at host/repository:TAG or oci:DIR:TAG and what it lists. Its
signatures are counted, but not verified: "releasectl inspect --key FILE" does
that.`,
		Args: usage.Arguments("the reference of the release"),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := publish.ShowRelease(c.Context(), args[0], o)
			if err != nil {
				return err
			}
			a := struct {
				Reference string `json:"reference"`
				*publish.Shown
			}{args[0], s}
			return out.answer("release.show", a, func(w io.Writer) {
				line := lines(w)
				fmt.Fprintln(w, args[0])
				fmt.Fprintf(w, "  %s\n", s.Digest)
				releaseText(line, s.Release)
				line("signed", unverified(s.Signatures))
			})
		},
	}
	plainHTTP(c, &o)
	return c
}

// drafted answers with the release that a command changed.
func (o *output) drafted(command, reference string, d *publish.Drafted) error {
	a := releaseAnswer{reference, d.Index.Digest, d.Release}
	return o.answer("release."+command, a, func(w io.Writer) {
		line := lines(w)
		fmt.Fprintln(w, reference)
		fmt.Fprintf(w, "  %s\n", a.Digest)
		releaseText(line, d.Release)
	})
}

func releaseText(line func(name, value string), r *release.Release) {
	line("version", r.Version)
	line("sequence", fmt.Sprint(r.Sequence))
	line("stream", r.Stream)
	line("expires", r.Expires.Format(time.RFC3339))
	line("barrier", r.MinVersion)
	if p := r.Rollout; p != nil {
		line("rollout", rolloutText(*p))
	}
	line("notes", r.Notes)
	for _, i := range r.Images {
		line("image", fmt.Sprintf("%s  %s%s", short(i.Descriptor.Digest), i.Audience(), conditions(i)))
	}
	for _, p := range r.LivePatches {
		line("livepatch", fmt.Sprintf("%s  %s for %s, %s", short(p.Descriptor.Digest), p.Name, p.KernelRelease,
			usage.Count(len(p.Fixes), "fix", "fixes")))
	}
	for _, d := range r.Deltas {
		line("delta", fmt.Sprintf("%s  %s", short(d.Digest), usage.Size(d.Size)))
	}
}

// rolloutText says when which share of the hosts may take a release.
func rolloutText(r release.Rollout) string {
	text := fmt.Sprintf("from %s over %s", r.Start.Format(time.RFC3339), hours(r.Duration))
	for i, share := range r.Steps {
		text += fmt.Sprintf("%s%d%%", []string{": ", ", "}[min(i, 1)], share)
	}
	switch {
	case r.Paused != "":
		return "paused: " + r.Paused + "; " + text
	case r.Stopped != "":
		return "stopped: " + r.Stopped + "; " + text
	}
	return text
}

// hours writes a duration without its zeros.
func hours(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"0s", "0m"} {
		if rest := strings.TrimSuffix(text, zero); rest != "" &&
			!strings.ContainsAny(rest[len(rest)-1:], "0123456789") {
			text = rest
		}
	}
	return text
}

func conditions(i release.Image) string {
	var text string
	if i.KernelRelease != "" {
		text += ", kernel " + i.KernelRelease
		if i.KernelVersion != "" {
			text += " (" + i.KernelVersion + ")"
		}
	}
	if len(i.Fixes) > 0 {
		text += ", " + usage.Count(len(i.Fixes), "fix", "fixes")
	}
	if i.SystemdMin != 0 {
		text += fmt.Sprintf(", systemd %d or newer", i.SystemdMin)
	}
	if i.Sealed() {
		text += ", sealed"
	}
	return text
}

// unverified says how many signatures were found, but not verified.
func unverified(n int) string {
	if n == 0 {
		return signatures(0)
	}
	return signatures(n) + ", not verified"
}

func signatures(n int) string {
	if n == 0 {
		return "no signature was found"
	}
	return usage.Count(n, "signature", "signatures")
}
