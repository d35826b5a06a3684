package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/image/publish"
)

// pushAnswer is what push says in JSON.
type pushAnswer struct {
	Schema     string        `json:"schema"`
	Reference  string        `json:"reference"`
	Digest     digest.Digest `json:"digest"`
	Signatures int           `json:"signatures"`
}

func newPush(out *output) *cobra.Command {
	var o publish.Options
	c := &cobra.Command{
		Use:   "push LAYOUT[:TAG] REFERENCE",
		Short: "Copy an image and its signatures to a registry",
		Long: `Copy an image or index from an OCI layout directory, with the signatures
attached to it, to host/repository:tag (or to another layout, oci:DIR:tag).
The tag moves last: no host finds the image before its signatures are there.`,
		Args: arguments("the layout to read from", "the reference to push to"),
		RunE: func(c *cobra.Command, args []string) error {
			from := "oci:" + strings.TrimPrefix(args[0], "oci:")
			return push(c, out, from, args[1], o)
		},
	}
	plainHTTP(c, &o)
	return c
}

func push(c *cobra.Command, out *output, from, to string, o publish.Options) error {
	var talking sync.Mutex // blobs are copied at the same time
	done, err := publish.Push(c.Context(), from, to, o, func(d ocispec.Descriptor) {
		talking.Lock()
		defer talking.Unlock()
		out.talk("copied %s, %s", d.Digest, units.HumanSize(float64(d.Size)))
	})
	if err != nil {
		return err
	}
	a := pushAnswer{"releasectl.push/v1", to, done.Image.Digest, done.Signatures}
	return out.answer(a, func(w io.Writer) {
		fmt.Fprintf(w, "pushed %s\n", to)
		fmt.Fprintf(w, "  digest      %s\n", a.Digest)
		fmt.Fprintf(w, "  signatures  %d\n", a.Signatures)
	})
}
