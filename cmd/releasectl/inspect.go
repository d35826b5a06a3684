package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/verify"
)

// inspectAnswer is what inspect says in JSON.
type inspectAnswer struct {
	Schema    string `json:"schema"`
	Reference string `json:"reference"`
	*publish.Report
}

func newInspect(out *output) *cobra.Command {
	var keyFiles []string
	var o publish.Options
	c := &cobra.Command{
		Use:   "inspect [--key FILE]... REFERENCE",
		Short: "Show what is published at a reference",
		Long: `Show the digest, platform, version, layers and signatures of what is published
at host/repository:tag or oci:DIR:tag. With --key the signatures are verified as a host
does it; if none is by one of the keys, the exit code is 20.`,
		Args: arguments("the reference to look at"),
		RunE: func(c *cobra.Command, args []string) error {
			keys, err := readKeys(keyFiles)
			if err != nil {
				return err
			}
			return inspect(c, out, args[0], keys, o)
		},
	}
	c.Flags().StringArrayVar(&keyFiles, "key", nil, "public key `file` to verify with; may be repeated")
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
	a := inspectAnswer{"releasectl.inspect/v1", reference, r}
	return errors.Join(out.answer(a, func(w io.Writer) { printReport(w, reference, r, len(keys) > 0) }), err)
}

func printReport(w io.Writer, reference string, r *publish.Report, judged bool) {
	line := lines(w)
	fmt.Fprintln(w, reference)
	line("digest", r.Digest.String())
	line("type", r.MediaType)
	if r.Release == nil {
		line("version", r.Version)
	}
	line("platform", r.Platform)
	for _, l := range r.Layers {
		line("layer", fmt.Sprintf("%s  %s  %s", l.Digest, l.MediaType, units.HumanSize(float64(l.Size))))
	}
	if r.Release != nil {
		releaseText(line, r.Release)
	} else {
		for _, i := range r.Images {
			line("image", fmt.Sprintf("%s  %s", i.Digest, i.Platform))
		}
	}
	for _, s := range r.Signatures {
		line("signed", describeSignature(s, judged))
	}
	if len(r.Signatures) == 0 {
		line("signed", "no signature was found")
	}
}

func describeSignature(s publish.Signature, judged bool) string {
	switch {
	case s.Verified:
		return fmt.Sprintf("%s, verified by %s", s.Form, s.Signer)
	case judged:
		return fmt.Sprintf("%s, does not count: %s", s.Form, s.Problem)
	}
	return fmt.Sprintf("%s, not verified: give --key", s.Form)
}
