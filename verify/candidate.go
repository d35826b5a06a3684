package verify

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
)

// Form is one of the two shapes in which cosign publishes a signature.
type Form string

const (
	// FormBundle is the Sigstore bundle that cosign 3 attaches as a referrer.
	FormBundle Form = "bundle"
	// FormSimple is the simple-signing payload that cosign 2 wrote to the tag sha256-<hex>.sig.
	FormSimple Form = "simple-signing"
)

// Candidate is one signature that was found for a digest. Nothing about it is trusted: whoever may write to the
// registry may have put it there.
type Candidate struct {
	Form   Form   `json:"form"`
	Bundle []byte `json:"bundle,omitempty"` // FormBundle: the bundle's JSON

	// The rest is FormSimple's. What cosign keeps in annotations is here as it stands there.
	Payload     []byte `json:"payload,omitempty"`     // the signed JSON
	Signature   []byte `json:"signature,omitempty"`   // raw, base64 already undone
	Certificate []byte `json:"certificate,omitempty"` // PEM, of a keyless signature
	LogEntry    []byte `json:"log_entry,omitempty"`   // JSON, with the log's promise
	Timestamp   []byte `json:"timestamp,omitempty"`   // JSON, by a timestamp authority

	From string `json:"from,omitempty"` // where it was found, for messages only
}

// sealed is a candidate taken apart: what was signed is still unread.
type sealed struct {
	form      Form
	message   []byte // the exact bytes the signature covers
	signature []byte
	// keyless says that it comes with a certificate.
	keyless bool
	// proofs returns the whole of it as the Sigstore libraries want it. A rule that asks for no proof does not call
	// it.
	proofs func() (*bundlepb.Bundle, error)
	// artifact is the signed document of a signature that is no envelope.
	artifact []byte
	// claim reads what was signed, so it is called only after the signature was found good. It returns nil if the
	// signer vouches for the image d.
	claim func(d digest.Digest) error
}

func (c Candidate) open() (*sealed, error) {
	switch c.Form {
	case FormBundle:
		return openBundle(c.Bundle)
	case FormSimple:
		return openPayload(c)
	}
	return nil, fmt.Errorf("unknown signature form %q", c.Form)
}

// otherImage says that a good signature is for another image.
type otherImage struct{ digest string }

func (o *otherImage) Error() string { return fmt.Sprintf("it is for %q", o.digest) }

// notForImage says that what a good signature covers is no image signature.
type notForImage struct{ what string }

func (n *notForImage) Error() string { return "it is " + n.what + ", not the signature of an image" }
