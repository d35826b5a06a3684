package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/verify"
)

// inspectAnswer is the answer of inspect in JSON.
type inspectAnswer struct {
	Reference string `json:"reference"`
	*publish.Report
}

func newInspect(out *output) *cobra.Command {
	var keyFiles []string
	var o publish.Options
	c := &cobra.Command{
		Use:   "inspect [flags] [--key FILE]... REFERENCE",
		Short: "Show what is published at a reference",
		Long: `Show the digest, platform, version, layers and signatures of the image, index or
release at host/repository:TAG or oci:DIR:TAG.

With --key, the signatures are verified as on a host. When none of them is by
one of the keys, the exit code is 20.`,
		Example: `  releasectl inspect --key cosign.pub registry.example.org/os/server:stable`,
		Args:    usage.Arguments("the reference to inspect"),
		RunE: func(c *cobra.Command, args []string) error {
			keys, err := readKeys(keyFiles)
			if err != nil {
				return err
			}
			return inspect(c, out, args[0], keys, o)
		},
	}
	c.Flags().StringArrayVar(&keyFiles, "key", nil, "public key `FILE` to verify with; may be repeated")
	plainHTTP(c, &o)
	return c
}

func readKeys(files []string) ([]verify.Key, error) {
	var keys []verify.Key
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, &usageError{fmt.Errorf("cannot read the key: %w", err)}
		}
		k, err := verify.ParseKey(filepath.Base(file), pem)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func inspect(c *cobra.Command, out *output, reference string, keys []verify.Key, o publish.Options) error {
	r, err := publish.Inspect(c.Context(), reference, keys, o)
	if r == nil {
		return err
	}
	a := inspectAnswer{reference, r}
	return errors.Join(out.answer("inspect", a, func(w io.Writer) { printReport(w, reference, r, len(keys) > 0) }), err)
}

// layerTypes starts the media types of OCI layers, which go without saying.
const layerTypes = "application/vnd.oci.image.layer.v1."

func printReport(w io.Writer, reference string, r *publish.Report, judged bool) {
	line := lines(w)
	fmt.Fprintln(w, reference)
	fmt.Fprintf(w, "  %s\n", r.Digest)
	line("type", r.MediaType)
	if r.Release == nil {
		line("version", r.Version)
	}
	line("platform", r.Platform)
	for _, l := range r.Layers {
		line("layer", fmt.Sprintf("%s  %s  %s", short(l.Digest), strings.TrimPrefix(l.MediaType, layerTypes),
			usage.Size(l.Size)))
	}
	if r.Release != nil {
		releaseText(line, r.Release)
	} else {
		for _, i := range r.Images {
			line("image", fmt.Sprintf("%s  %s", short(i.Digest), i.Platform))
		}
	}
	for _, s := range r.Signatures {
		line("signed", describeSignature(s, judged))
	}
	if len(r.Signatures) == 0 {
		line("signed", signatures(0))
	}
}

func describeSignature(s publish.Signature, judged bool) string {
	switch {
	case s.Verified:
		return fmt.Sprintf("%s, verified by %s", s.Form, s.Signer)
	case judged:
		return fmt.Sprintf("%s, not accepted: %s", s.Form, s.Problem)
	}
	return fmt.Sprintf("%s, not verified (that takes --key)", s.Form)
}
