package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apex/log"
	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/umoci/oci/casext"
	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/image/source"
)

// defaultTag is the tag of a layout's image when none is given.
const defaultTag = "latest"

// packAnswer is what pack says in JSON.
type packAnswer struct {
	Schema       string        `json:"schema"`
	Reference    string        `json:"reference"`
	Digest       digest.Digest `json:"digest"`
	Architecture string        `json:"architecture"`
	Version      string        `json:"version,omitempty"`
	Layer        packLayer     `json:"layer"`
}

type packLayer struct {
	Digest    digest.Digest `json:"digest"`
	DiffID    digest.Digest `json:"diff_id"`
	MediaType string        `json:"media_type"`
	Size      int64         `json:"size"`
}

func newPack(out *output) *cobra.Command {
	var r publish.Recipe
	c := &cobra.Command{
		Use:   "pack ROOT LAYOUT[:TAG]",
		Short: "Pack a root directory, or a tar file of one, into an image",
		Long: `Pack a root directory, or an uncompressed tar file of one, into an image in an
OCI layout directory, which is made if it does not exist. The tag is "latest"
if none is given.

Modes, owners, times (in seconds), xattrs with file capabilities and ACLs, hard
links and device nodes are kept; sockets and what lies in /proc, /sys and /run
are left out. SELinux labels are kept from a tar file only. The same tree gives
the same image; with SOURCE_DATE_EPOCH set no file is newer than that.`,
		Example: `  releasectl pack --version 24.1 ./rootfs ./images:stable
  mmdebstrap trixie root.tar && releasectl pack root.tar ./images:stable`,
		Args: arguments("the root directory", "the layout to write to"),
		RunE: func(c *cobra.Command, args []string) error {
			r.Tree = args[0]
			r.Layout, r.Tag = publish.SplitLayout(args[1])
			return pack(c, out, r)
		},
	}
	c.Flags().StringVar(&r.Compression, "compression", publish.Compressions[0], "`"+strings.Join(publish.Compressions, "|")+"`: of the layer")
	c.Flags().StringVar(&r.Version, "version", "", "`name` of this version, kept as org.opencontainers.image.version")
	c.Flags().StringVar(&r.Architecture, "architecture", "", "what it runs on, as Go names it (default: read from the tree's init)")
	return c
}

func pack(c *cobra.Command, out *output, r publish.Recipe) error {
	if r.Tag == "" {
		r.Tag = defaultTag
	}
	if !casext.IsValidReferenceName(r.Tag) || r.Layout == "" {
		return fmt.Errorf("%w %q", source.ErrReference, c.Flags().Arg(1))
	}
	if !slices.Contains(publish.Compressions, r.Compression) {
		return &usageError{fmt.Errorf("--compression is %q: use %s", r.Compression, strings.Join(publish.Compressions, ", "))}
	}
	var err error
	if r.Epoch, err = sourceDate(); err != nil {
		return err
	}
	warnings := collectWarnings()
	p, err := publish.Pack(c.Context(), r)
	if err != nil {
		return err
	}
	for _, w := range *warnings {
		out.talk("warning: %s", w)
	}
	if p.Guessed {
		out.talk("warning: no init was found in %s: hosts will not boot it, and %s is this machine's architecture", r.Tree, p.Platform.Architecture)
	}
	a := packAnswer{
		Schema:       "releasectl.pack/v1",
		Reference:    "oci:" + r.Layout + ":" + r.Tag,
		Digest:       p.Manifest.Digest,
		Architecture: p.Platform.Architecture,
		Version:      r.Version,
		Layer:        packLayer{p.Layer.Digest, p.DiffID, p.Layer.MediaType, p.Layer.Size},
	}
	return out.answer(a, func(w io.Writer) {
		fmt.Fprintf(w, "packed %s\n", a.Reference)
		fmt.Fprintf(w, "  digest        %s\n", a.Digest)
		fmt.Fprintf(w, "  architecture  %s\n", a.Architecture)
		fmt.Fprintf(w, "  layer         %s, %s\n", r.Compression, units.HumanSize(float64(a.Layer.Size)))
	})
}

// sourceDate reads SOURCE_DATE_EPOCH, see reproducible-builds.org.
func sourceDate() (*time.Time, error) {
	text, ok := os.LookupEnv("SOURCE_DATE_EPOCH")
	if !ok {
		return nil, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return nil, &usageError{errors.New("SOURCE_DATE_EPOCH is not a number of seconds")}
	}
	t := time.Unix(seconds, 0).UTC()
	return &t, nil
}

// collectWarnings keeps what umoci logs until it is known whether packing
// failed: then it logs the error three times, which is twice too often.
func collectWarnings() *[]string {
	var all []string
	log.SetHandler(log.HandlerFunc(func(e *log.Entry) error {
		if e.Level >= log.WarnLevel {
			all = append(all, e.Message)
		}
		return nil
	}))
	return &all
}
