package main

import (
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/image/publish"
)

// pushAnswer is the answer of push in JSON.
type pushAnswer struct {
	Reference  string        `json:"reference"`
	Digest     digest.Digest `json:"digest"`
	Signatures int           `json:"signatures"`
}

func newPush(out *output) *cobra.Command {
	var o publish.Options
	c := &cobra.Command{
		Use:   "push [flags] [oci:]DIR[:TAG] REFERENCE",
		Short: "Copy an image or a release with its signatures to a registry",
		Long: `Copy an image, an index or a release from an OCI layout directory to
host/repository:TAG, or to another layout, oci:DIR:TAG, with the signatures
attached to it.

The tag moves last: no host finds an image before its signatures are there.
What is there already is not copied again.`,
		Example: `  releasectl push oci:images:stable registry.example.org/os/server:stable
  releasectl push oci:images:stable oci:/media/usb/os:stable`,
		Args: usage.Arguments("the layout to read from", "the reference to push to"),
		RunE: func(c *cobra.Command, args []string) error {
			return push(c, out, fromLayout(args[0]), args[1], o)
		},
	}
	plainHTTP(c, &o)
	return c
}

func push(c *cobra.Command, out *output, from, to string, o publish.Options) error {
	var talking sync.Mutex // blobs are copied in parallel
	done, err := publish.Push(c.Context(), from, to, o, func(d ocispec.Descriptor) {
		talking.Lock()
		defer talking.Unlock()
		out.talk("copied %s, %s", short(d.Digest), usage.Size(d.Size))
	})
	if err != nil {
		return err
	}
	a := pushAnswer{to, done.Image.Digest, done.Signatures}
	return out.answer("push", a, func(w io.Writer) {
		fmt.Fprintf(w, "pushed %s\n", to)
		fmt.Fprintf(w, "  %s\n", a.Digest)
		lines(w)("signed", signatures(a.Signatures))
	})
}
