package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apex/log"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/image/packing"
)

// packAnswer is the answer of pack in JSON.
type packAnswer struct {
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
	var r packing.Recipe
	c := &cobra.Command{
		Use:   "pack [flags] ROOT [oci:]DIR[:TAG]",
		Short: "Pack a root directory, or a tar file of one, into an image",
		Long: `Pack a root directory, or an uncompressed tar file of one, into an image in an
OCI layout directory, which is made if it does not exist. The tag is "latest"
if none is given.

Modes, owners, times (in seconds), xattrs with file capabilities and ACLs, hard
links and device nodes are kept. Sockets and the contents of /proc, /sys and
/run are left out. SELinux labels are kept from a tar file only.

The same tree always gives the same image. With SOURCE_DATE_EPOCH set, no file
is newer than that.`,
		Example: `  releasectl pack --version 24.1 ./rootfs oci:images:stable
  mmdebstrap trixie root.tar && releasectl pack root.tar oci:images:stable`,
		Args: usage.Arguments("the root directory", "the layout to write to"),
		RunE: func(c *cobra.Command, args []string) error {
			r.Tree = args[0]
			var reference string
			var err error
			if reference, r.Layout, r.Tag, err = inLayout(args[1]); err != nil {
				return err
			}
			return pack(c, out, reference, r)
		},
	}
	f := c.Flags()
	f.StringVar(&r.Compression, "compression", packing.Compressions[0], "`ALGORITHM` of the layer: "+
		strings.Join(packing.Compressions, ", "))
	f.StringVar(&r.Version, "version", "", "`VERSION` of the image (annotation org.opencontainers.image.version)")
	f.StringVar(&r.Architecture, "architecture", "",
		"`GOARCH` that it runs on, such as arm64 (default: that of the tree's init)")
	return c
}

func pack(c *cobra.Command, out *output, reference string, r packing.Recipe) error {
	if !slices.Contains(packing.Compressions, r.Compression) {
		return &usageError{fmt.Errorf("--compression is %q: use %s", r.Compression,
			strings.Join(packing.Compressions, ", "))}
	}
	var err error
	if r.Epoch, err = sourceDate(); err != nil {
		return err
	}
	warnings := collectWarnings()
	p, err := packing.Pack(c.Context(), r)
	if err != nil {
		return err
	}
	for _, w := range *warnings {
		out.talk("warning: %s", w)
	}
	if p.Guessed {
		out.talk("warning: no init was found in %s: hosts refuse to boot it; the architecture is that of this "+
			"machine, %s", r.Tree, p.Platform.Architecture)
	}
	a := packAnswer{
		Reference:    reference,
		Digest:       p.Manifest.Digest,
		Architecture: p.Platform.Architecture,
		Version:      r.Version,
		Layer:        packLayer{p.Layer.Digest, p.DiffID, p.Layer.MediaType, p.Layer.Size},
	}
	return out.answer("pack", a, func(w io.Writer) {
		line := lines(w)
		fmt.Fprintf(w, "packed %s\n", a.Reference)
		fmt.Fprintf(w, "  %s\n", a.Digest)
		line("platform", p.Platform.OS+"/"+a.Architecture)
		line("layer", fmt.Sprintf("%s, %s", r.Compression, usage.Size(a.Layer.Size)))
	})
}

// sourceDate reads SOURCE_DATE_EPOCH (see reproducible-builds.org); nil when it is not set.
func sourceDate() (*time.Time, error) {
	text, ok := os.LookupEnv("SOURCE_DATE_EPOCH")
	if !ok {
		return nil, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return nil, &usageError{fmt.Errorf("SOURCE_DATE_EPOCH is %q: it is not a number of seconds since 1970", text)}
	}
	t := time.Unix(seconds, 0).UTC()
	return &t, nil
}

// collectWarnings keeps what umoci logs until packing has succeeded: when it fails, umoci logs the error three times,
// and releasectl reports it anyway.
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
