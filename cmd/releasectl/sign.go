package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

// forms are the values of --form.
var forms = map[string]verify.Form{"bundle": verify.FormBundle, "simple": verify.FormSimple}

// signAnswer is what sign says in JSON.
type signAnswer struct {
	Schema    string        `json:"schema"`
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
		Use:   "sign --key FILE REFERENCE",
		Short: "Sign an image or index, as cosign does",
		Long: `Sign the image or index at a reference: host/repository:tag,
host/repository@sha256:… or oci:DIR:tag. The signature is one that updatectl and
"cosign verify --key FILE --insecure-ignore-tlog" accept.

The form "bundle" is what cosign 3 writes and needs nothing of the registry;
"simple" is cosign 2's sha256-….sig tag. Signing twice with a key does nothing.
The key's password is taken from COSIGN_PASSWORD or asked for.`,
		Args: arguments("the reference of what to sign"),
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
			return signImage(c, out, args[0], keyFile, s, o)
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "private key `file`, in PEM form")
	c.Flags().StringVar(&form, "form", "bundle", "`bundle|simple`: how the signature is attached")
	c.Flags().StringVar(&identity, "identity", "", "`repository` that a simple signature names (default: the reference's)")
	plainHTTP(c, &o)
	return c
}

// plainHTTP adds the flag of commands that talk to registries.
func plainHTTP(c *cobra.Command, o *publish.Options) {
	c.Flags().BoolVar(&o.PlainHTTP, "plain-http", false, "talk to the registry without TLS")
}

func signImage(c *cobra.Command, out *output, reference, keyFile string, s publish.Seal, o publish.Options) error {
	if keyFile == "" {
		return &usageError{errors.New("--key is missing")}
	}
	pem, err := os.ReadFile(keyFile)
	if err != nil {
		return &usageError{fmt.Errorf("cannot read the key: %w", err)}
	}
	if s.Signer, err = sign.LoadKey(pem, password(out)); err != nil {
		return fmt.Errorf("cannot use %s: %w", keyFile, err)
	}
	done, err := publish.Sign(c.Context(), reference, s, o)
	if err != nil {
		return err
	}
	a := signAnswer{
		Schema:    "releasectl.sign/v1",
		Reference: reference,
		Digest:    done.Image.Digest,
		Form:      s.Form,
		KeyID:     done.Key.ID,
		Already:   done.Already,
	}
	return out.answer(a, func(w io.Writer) {
		if a.Already {
			fmt.Fprintf(w, "was signed already: %s\n", reference)
		} else {
			fmt.Fprintf(w, "signed %s\n", reference)
		}
		fmt.Fprintf(w, "  digest  %s\n", a.Digest)
		fmt.Fprintf(w, "  key     %s\n", a.KeyID)
		fmt.Fprintf(w, "  form    %s\n", a.Form)
	})
}

// passwordVariable is where cosign too looks for the password of a key.
const passwordVariable = "COSIGN_PASSWORD"

// password finds the key's password, which is asked for only on a terminal.
func password(out *output) func() ([]byte, error) {
	return func() ([]byte, error) {
		if text, ok := os.LookupEnv(passwordVariable); ok {
			return []byte(text), nil
		}
		stdin := int(os.Stdin.Fd())
		if !term.IsTerminal(stdin) {
			return nil, errors.New("it is encrypted, " + passwordVariable + " is not set and there is no terminal to ask on")
		}
		fmt.Fprint(out.stderr, "Password of the key: ")
		defer fmt.Fprintln(out.stderr)
		return term.ReadPassword(stdin)
	}
}
