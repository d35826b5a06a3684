package fetcher

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/registry"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/printable"
)

// settings are what a fetcher gets when it starts. Root reads the certificates, because their files may be readable by
// root alone. Logins are not among them: a fetcher has to ask for one.
type settings struct {
	Reference   string        `json:"reference"`
	PlainHTTP   bool          `json:"plain_http,omitempty"`
	Authorities []byte        `json:"authorities,omitempty"`
	UserAgent   string        `json:"user_agent,omitempty"`
	Stall       time.Duration `json:"stall,omitempty"`
	Rate        int64         `json:"rate,omitempty"`
	Impatient   bool          `json:"impatient,omitempty"`
}

// question says what a request asks for.
type question string

const (
	resolve   question = "resolve"
	open      question = "open"
	referrers question = "referrers"
)

// request is what a fetcher is asked.
type request struct {
	Question question      `json:"question"`
	Tag      string        `json:"tag,omitempty"`
	Digest   digest.Digest `json:"digest,omitempty"`
	Size     int64         `json:"size,omitempty"`
	Manifest bool          `json:"manifest,omitempty"`
	Offset   int64         `json:"offset,omitempty"`
}

const (
	// maxFound bounds the descriptors of one answer: a list of referrers has eight pages.
	maxFound = 4096
	// maxFoundBytes bounds all of them together, as a manifest is bounded.
	maxFoundBytes = verify.MaxManifest
	// maxMediaType bounds a media type (RFC 6838 allows 127 characters for each half).
	maxMediaType = 255
	// maxText bounds the text of an error.
	maxText = 2 << 10
	// maxLogins bounds how often one request may ask for credentials. Each challenge is answered once, and a request
	// is redirected ten times at most.
	maxLogins = 32
)

// descriptor is what root uses of a descriptor.
type descriptor struct {
	MediaType   string            `json:"media_type"`
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// parseFound reads a descriptor. Its digest is well-formed: others rely on that.
func parseFound(content []byte) (ocispec.Descriptor, error) {
	var d descriptor
	if err := json.Unmarshal(content, &d); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", errFrame, err)
	}
	if err := checkFound(d); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations}, nil
}

func checkFound(d descriptor) error {
	switch {
	case d.Digest.Validate() != nil:
		return fmt.Errorf("%w: the digest is %.140q", errFrame, d.Digest)
	case d.Size < 0:
		return fmt.Errorf("%w: the size is %d", errFrame, d.Size)
	case len(d.MediaType) > maxMediaType:
		return fmt.Errorf("%w: the media type has %d bytes", errFrame, len(d.MediaType))
	}
	return nil
}

// start is the answer to a request for content.
type start struct {
	At int64 `json:"at"` // the offset at which the body begins
}

// parseOpened returns where a body begins that was requested from an offset on.
func parseOpened(content []byte, offset int64) (int64, error) {
	var s start
	if err := json.Unmarshal(content, &s); err != nil {
		return 0, fmt.Errorf("%w: %w", errFrame, err)
	}
	if s.At < 0 || s.At > offset {
		return 0, fmt.Errorf("%w: bytes from %d were requested, and it begins at %d", errFrame, offset, s.At)
	}
	return s.At, nil
}

// errorKinds are the errors by which callers decide. All others are their text.
var errorKinds = map[string]error{
	"unreachable": failure.ErrUnreachable,
	"auth":        failure.ErrAuth,
	"not-found":   failure.ErrNotFound,
	"no-tls":      failure.ErrNoTLS,
	"digest":      verify.ErrDigest,
	"slow":        registry.ErrSlow,
}

// certificate is the kind of an error about the certificate of a server.
const certificate = "certificate"

// outcome says how a request ended: without kinds and text, well.
type outcome struct {
	Kinds []string `json:"kinds,omitempty"`
	Text  string   `json:"text,omitempty"`
}

// outcomeOf returns what is said about an error.
func outcomeOf(err error) outcome {
	if err == nil {
		return outcome{}
	}
	o := outcome{Text: plain(err.Error())}
	for name, is := range errorKinds {
		if errors.Is(err, is) {
			o.Kinds = append(o.Kinds, name)
		}
	}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		o.Kinds = append(o.Kinds, certificate)
	}
	return o
}

// parseEnded returns the error with which a request ended, nil if it ended well.
func parseEnded(content []byte) error {
	var o outcome
	if err := json.Unmarshal(content, &o); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	return o.err()
}

// err returns what was said as an error of the same kinds.
func (o outcome) err() error {
	if len(o.Kinds) == 0 && o.Text == "" {
		return nil
	}
	t := told{text: plain(cmp.Or(o.Text, "no reason is given"))}
	for _, name := range o.Kinds {
		if is, known := errorKinds[name]; known {
			t.kinds = append(t.kinds, is)
		}
		if name == certificate {
			t.kinds = append(t.kinds, &tls.CertificateVerificationError{Err: errors.New(t.text)})
		}
	}
	return t
}

// told is an error from the other side.
type told struct {
	text  string
	kinds []error
}

func (t told) Error() string   { return t.text }
func (t told) Unwrap() []error { return t.kinds }

// plain returns text of bounded length without control characters.
func plain(text string) string {
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return printable.Text(text)
}
