package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/umoci/oci/casext"
	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
)

// releaseAnswer is what the release commands say in JSON.
type releaseAnswer struct {
	Schema    string        `json:"schema"`
	Reference string        `json:"reference"`
	Digest    digest.Digest `json:"digest"`
	*release.Release
}

func newRelease(out *output) *cobra.Command {
	c := &cobra.Command{
		Use:   "release",
		Short: "Make a release: an index that names images, live patches and deltas, to be signed as one",
		Long: `A release is an OCI index that names the images, live patches and deltas that belong
together, their order and until when they count. It is made in an OCI layout: begin
it with "new", fill it with "add" and with "releasectl livepatch add", then sign it,
then push it.

Every addition makes another index with another digest, so the signature comes last.
A release that is signed is not changed any more: the next one is another release,
with a larger sequence.`,
		Example: `  releasectl release new --version 2026.11.1 --sequence 42 --expires 720h layout:stable
  releasectl release add image layout:stable oci:layout:amd64
  releasectl sign --key cosign.key oci:layout:stable
  releasectl push layout:stable registry.example.org/os/server:stable`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	add := &cobra.Command{
		Use:   "add",
		Short: "Add an image or a delta to a release that is not signed yet; for live patches see `releasectl livepatch`",
		Args:  arguments(),
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	add.AddCommand(newAddImage(out), newAddDelta(out))
	c.AddCommand(newReleaseNew(out), add, newReleaseShow(out))
	return c
}

func newReleaseNew(out *output) *cobra.Command {
	var h release.Header
	var expires, rollout string
	c := &cobra.Command{
		Use:   "new --version VERSION --sequence N --expires TIME LAYOUT[:TAG]",
		Short: "Begin a release",
		Long: `Begin a release in an OCI layout directory, which is made if it does not exist. The tag is
"latest" if none is given. A release that it named before is removed if nobody has signed it;
anything else stays in the layout.

Hosts take a release only if its sequence is not smaller, and its version not older, than
those of the last one they took. Versions are ordered as "systemd-analyze compare-versions"
does it. After --expires no host takes it: publish it again, with a larger sequence, in time.`,
		Args: arguments("the layout to write to"),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if h.Expires, err = expiry(expires, time.Now()); err != nil {
				return &usageError{err}
			}
			if rollout != "" {
				if h.Rollout, err = release.ParseRollout(rollout); err != nil {
					return &usageError{fmt.Errorf("--rollout: %w", err)}
				}
			}
			reference, err := draftReference(args[0])
			if err != nil {
				return err
			}
			d, err := publish.NewRelease(c.Context(), reference, h)
			if err != nil {
				return err
			}
			if d.Replaced {
				out.talk("warning: %s named something that is signed; it is still in the layout, without this tag", reference)
			}
			if !h.Expires.After(time.Now()) {
				out.talk("warning: the release has expired already; no host takes it")
			}
			return out.drafted("new", reference, d)
		},
	}
	f := c.Flags()
	f.StringVar(&h.Version, "version", "", "its `VERSION`, which never goes backwards")
	f.Int64Var(&h.Sequence, "sequence", 0, "its number `N`, larger than that of the release before")
	f.StringVar(&expires, "expires", "", "until when hosts may take it: a `TIME` as in 2027-01-31T12:00:00Z, or from now, as in 720h")
	f.StringVar(&h.MinVersion, "min-version", "", "a barrier: hosts older than `VERSION` go through that one first")
	f.StringVar(&h.Notes, "notes", "", "`TEXT` for the people who run hosts")
	f.StringVar(&rollout, "rollout", "", "`JSON` with start, duration and steps in percent of the hosts")
	return c
}

// expiry reads a time, or a duration from now on.
func expiry(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, errors.New("--expires is missing")
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(d).UTC().Truncate(time.Second), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("--expires is %q: write a time as in 2027-01-31T12:00:00Z, or a duration as in 720h", text)
	}
	return t.UTC(), nil
}

func newAddImage(out *output) *cobra.Command {
	var n publish.NewImage
	var o publish.Options
	c := &cobra.Command{
		Use:   "image LAYOUT[:TAG] IMAGE",
		Short: "Add an image, or all images of an index, and copy them to the layout",
		Long: `Add an image to a release in a layout, and copy it there. IMAGE is host/repository:tag
or oci:DIR:tag; its platform is read from its configuration. Of an index all images are added.

With --seal the release names the digest of the root that the image becomes, and a host whose
root has another digest does not take it. That reads all layers.`,
		Args: arguments("the release to add to", "the image to add"),
		RunE: func(c *cobra.Command, args []string) error {
			reference, err := draftReference(args[0])
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
	f.StringVar(&n.Compatible, "compatible", "", "the machine `CLASS` it is for (default: every machine)")
	f.StringVar(&n.KernelRelease, "kernel-release", "", "the `RELEASE` of the kernel in it, as uname -r says it")
	f.StringVar(&n.KernelVersion, "kernel-version", "", "the build of that kernel, as uname -v says it: then --fixes counts for this `VERSION` only (default with --seal: the kernel's, where it tells)")
	f.IntVar(&n.SystemdMin, "systemd-min", 0, "the oldest `VERSION` of a host's systemd that can move into it")
	f.StringSliceVar(&n.Fixes, "fixes", nil, "what the kernel of --kernel-release fixes, as `CVE,…`")
	f.BoolVar(&n.Seal, "seal", false, "name the digest of the root it becomes")
	plainHTTP(c, &o)
	return c
}

func newAddDelta(out *output) *cobra.Command {
	var o publish.Options
	c := &cobra.Command{
		Use:   "delta LAYOUT[:TAG] DELTA",
		Short: "Add a delta and copy it to the layout",
		Long: `Add a delta to a release in a layout, and copy it there. DELTA is host/repository:tag or
oci:DIR:tag of an artifact of the type ` + release.DeltaType + `.`,
		Args: arguments("the release to add to", "the delta to add"),
		RunE: func(c *cobra.Command, args []string) error {
			reference, err := draftReference(args[0])
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
		Use:   "show REFERENCE",
		Short: "Show what a release says and lists",
		Long: `Show what the release at host/repository:tag or oci:DIR:tag says and lists. Its signatures
are counted and not verified: "releasectl inspect --key FILE" does that.`,
		Args: arguments("the reference of the release"),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := publish.ShowRelease(c.Context(), args[0], o)
			if err != nil {
				return err
			}
			a := struct {
				Schema    string `json:"schema"`
				Reference string `json:"reference"`
				*publish.Shown
			}{"releasectl.release.show/v1", args[0], s}
			return out.answer(a, func(w io.Writer) {
				line := lines(w)
				fmt.Fprintln(w, args[0])
				line("digest", s.Digest.String())
				releaseText(line, s.Release)
				line("signed", signatures(s.Signatures))
			})
		},
	}
	plainHTTP(c, &o)
	return c
}

// draftReference names a layout's tag the way package publish does.
func draftReference(arg string) (string, error) {
	dir, tag := publish.SplitLayout(arg)
	if tag == "" {
		tag = defaultTag
	}
	if dir == "" || !casext.IsValidReferenceName(tag) || strings.Contains(arg, "@") {
		return "", fmt.Errorf("%w %q: write the layout's directory, and a tag after a colon", source.ErrReference, arg)
	}
	return "oci:" + dir + ":" + tag, nil
}

// drafted answers with a release after a change.
func (o *output) drafted(command, reference string, d *publish.Drafted) error {
	a := releaseAnswer{"releasectl.release." + command + "/v1", reference, d.Index.Digest, d.Release}
	return o.answer(a, func(w io.Writer) {
		line := lines(w)
		fmt.Fprintln(w, reference)
		line("digest", a.Digest.String())
		releaseText(line, d.Release)
	})
}

// lines prints a name and a value, if there is one.
func lines(w io.Writer) func(name, value string) {
	return func(name, value string) {
		if value != "" {
			for line := range strings.SplitSeq(value, "\n") {
				fmt.Fprintf(w, "  %-9s %s\n", name, line)
				name = "" // of the first line only
			}
		}
	}
}

func releaseText(line func(name, value string), r *release.Release) {
	line("version", r.Version)
	line("sequence", fmt.Sprint(r.Sequence))
	line("expires", r.Expires.Format(time.RFC3339))
	line("barrier", r.MinVersion)
	if p := r.Rollout; p != nil {
		line("rollout", fmt.Sprintf("from %s for %s, steps %v", p.Start.Format(time.RFC3339), p.Duration, p.Steps))
	}
	line("notes", r.Notes)
	for _, i := range r.Images {
		line("image", fmt.Sprintf("%s  %s%s", i.Descriptor.Digest, i.Audience(), conditions(i)))
	}
	for _, p := range r.LivePatches {
		line("livepatch", fmt.Sprintf("%s  %s for %s, fixes %d", p.Descriptor.Digest, p.Name, p.KernelRelease, len(p.Fixes)))
	}
	for _, d := range r.Deltas {
		line("delta", fmt.Sprintf("%s  %s", d.Digest, units.HumanSize(float64(d.Size))))
	}
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
		text += fmt.Sprintf(", fixes %d", len(i.Fixes))
	}
	if i.SystemdMin != 0 {
		text += fmt.Sprintf(", systemd %d or newer", i.SystemdMin)
	}
	if i.Sealed() {
		text += ", sealed"
	}
	return text
}

func signatures(n int) string {
	switch n {
	case 0:
		return "no signature was found"
	case 1:
		return "1 signature, not verified"
	}
	return fmt.Sprintf("%d signatures, not verified", n)
}
