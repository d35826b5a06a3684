package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

// forms are the values of --form.
var forms = map[string]verify.Form{"bundle": verify.FormBundle, "simple": verify.FormSimple}

// signAnswer is the answer of sign in JSON.
type signAnswer struct {
	Reference string        `json:"reference"`
	Digest    digest.Digest `json:"digest"`
	Form      verify.Form   `json:"form"`
	KeyID     string        `json:"key_id"`
	Already   bool          `json:"already"` // the key had signed it before
}

func newSign(out *output) *cobra.Command {
	var keyFile, form, identity string
	var o publish.Options
	c := &cobra.Command{
		Use:   "sign [flags] --key FILE REFERENCE",
		Short: "Sign an image or a release, as cosign does",
		Long: `Sign the image, index or release at a reference: oci:DIR:TAG or
host/repository@sha256:…. In a registry it must be named by its digest, which
"releasectl push" prints: a registry may serve anything under a tag.
Both updatectl and "cosign verify --key FILE --insecure-ignore-tlog" accept the
signature.

The form "bundle" is that of cosign 3 and works with every registry; "simple" is
the sha256-….sig tag of cosign 2. Signing twice with the same key does nothing.
The password of the key is taken from COSIGN_PASSWORD, or asked for.`,
		Example: `  releasectl sign --key cosign.key oci:images:stable
  releasectl sign --key cosign.key registry.example.org/os/server@sha256:…`,
		Args: usage.Arguments("the reference of what to sign"),
		RunE: func(c *cobra.Command, args []string) error {
			s := publish.Seal{Form: forms[form], Identity: identity, Time: time.Now()}
			if s.Form == "" {
				return &usageError{fmt.Errorf("--form is %q: use bundle or simple", form)}
			}
			if epoch, err := sourceDate(); err != nil {
				return err
			} else if epoch != nil {
				s.Time = *epoch
			}
			return signReference(c, out, args[0], keyFile, s, o)
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "private key `FILE` in PEM form")
	c.Flags().StringVar(&form, "form", "bundle", "`FORM` of the signature: bundle or simple")
	c.Flags().StringVar(&identity, "identity", "",
		"`REPOSITORY` that a simple signature names (default: that of the reference)")
	plainHTTP(c, &o)
	return c
}

// plainHTTP adds the flag of the commands that talk to registries.
func plainHTTP(c *cobra.Command, o *publish.Options) {
	c.Flags().BoolVar(&o.PlainHTTP, "plain-http", false, "talk to the registry without TLS")
}

func signReference(c *cobra.Command, out *output, reference, keyFile string, s publish.Seal, o publish.Options) error {
	if err := required(c, "key"); err != nil {
		return err
	}
	pem, err := os.ReadFile(keyFile)
	if err != nil {
		return &usageError{fmt.Errorf("cannot read the key: %w", err)}
	}
	if s.Signer, err = sign.LoadKey(pem, password(c.Context(), out)); err != nil {
		return fmt.Errorf("cannot use %s: %w", keyFile, err)
	}
	done, err := publish.Sign(c.Context(), reference, s, o)
	if err != nil {
		return err
	}
	a := signAnswer{
		Reference: reference,
		Digest:    done.Image.Digest,
		Form:      s.Form,
		KeyID:     done.Key.ID,
		Already:   done.Already,
	}
	return out.answer("sign", a, func(w io.Writer) {
		if a.Already {
			fmt.Fprintf(w, "already signed: %s\n", reference)
		} else {
			fmt.Fprintf(w, "signed %s\n", reference)
		}
		fmt.Fprintf(w, "  %s\n", a.Digest)
		fmt.Fprintf(w, "  key  %s\n", a.KeyID)
		fmt.Fprintf(w, "  form %s\n", a.Form)
	})
}

// passwordVariable is the environment variable from which cosign, too, takes the password of a key.
const passwordVariable = "COSIGN_PASSWORD"

// password returns how to find the key's password. It is asked for on a terminal only.
func password(ctx context.Context, out *output) func() ([]byte, error) {
	return func() ([]byte, error) {
		if text, ok := os.LookupEnv(passwordVariable); ok {
			return []byte(text), nil
		}
		stdin := int(os.Stdin.Fd())
		before, err := term.GetState(stdin)
		if err != nil {
			return nil, errors.New("it is encrypted, " + passwordVariable +
				" is not set, and there is no terminal to ask on")
		}
		fmt.Fprint(out.stderr, "Password of the key: ")
		defer fmt.Fprintln(out.stderr)
		var typed []byte
		read := make(chan error, 1)
		go func() {
			var err error
			typed, err = term.ReadPassword(stdin)
			read <- err
		}()
		select {
		case err := <-read:
			return typed, err
		case <-ctx.Done(): // a read from a terminal cannot be interrupted; its echo is still off
			return nil, errors.Join(ctx.Err(), term.Restore(stdin, before))
		}
	}
}
