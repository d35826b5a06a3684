package verify

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
)

// Form is one of the two forms in which cosign publishes signatures.
type Form string

const (
	// FormBundle is a Sigstore bundle, which cosign 3 attaches as a referrer.
	FormBundle Form = "bundle"
	// FormSimple is a simple-signing payload, which cosign 2 stores under the tag sha256-<hex>.sig.
	FormSimple Form = "simple-signing"
)

// Candidate is a possible signature that was found for a digest. Nothing in it is trusted: anybody who can write to
// the registry can add one.
type Candidate struct {
	Form   Form   `json:"form"`
	Bundle []byte `json:"bundle,omitempty"` // the JSON of a FormBundle

	// The other fields are those of a FormSimple, as they are in cosign's annotations.
	Payload     []byte `json:"payload,omitempty"`     // the signed JSON
	Signature   []byte `json:"signature,omitempty"`   // raw, without the base64
	Certificate []byte `json:"certificate,omitempty"` // PEM, of a keyless signature
	LogEntry    []byte `json:"log_entry,omitempty"`   // JSON, with the promise of the log
	Timestamp   []byte `json:"timestamp,omitempty"`   // JSON, of a timestamp authority

	From string `json:"from,omitempty"` // where it was found, for messages only
}

// sealed is a parsed candidate. What was signed is not parsed yet.
type sealed struct {
	form      Form
	message   []byte // the exact bytes that the signature covers
	signature []byte
	// keyless means that there is a certificate.
	keyless bool
	// proofs returns the candidate in the form that the Sigstore libraries expect. It is only called if a rule
	// requires a proof.
	proofs func() (*bundlepb.Bundle, error)
	// artifact is the signed document, if that is not in an envelope.
	artifact []byte
	// claim parses what was signed, and returns nil if that is the signature of the image d. It is only called after
	// the signature was verified.
	claim func(d digest.Digest) error
}

func (c Candidate) open() (*sealed, error) {
	switch c.Form {
	case FormBundle:
		return openBundle(c.Bundle)
	case FormSimple:
		return openPayload(c)
	}
	return nil, fmt.Errorf("the signature has the unknown form %q", c.Form)
}

// otherImage means that a good signature is for another image.
type otherImage struct{ digest string }

func (o *otherImage) Error() string { return fmt.Sprintf("it is for %q", o.digest) }

// notForImage means that a good signature is not the signature of an image.
type notForImage struct{ what string }

func (n *notForImage) Error() string { return "it is " + n.what + ", not the signature of an image" }
