package verify

import (
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Form is one of the two shapes in which cosign publishes a signature.
type Form string

const (
	// FormBundle is the Sigstore bundle that cosign 3 attaches as a referrer.
	FormBundle Form = "bundle"
	// FormSimple is the simple-signing payload that cosign 2 wrote to the tag
	// sha256-<hex>.sig.
	FormSimple Form = "simple-signing"
)

// Candidate is one signature that was found for a digest. Nothing about it is
// trusted: whoever may write to the registry may have put it there.
type Candidate struct {
	Form      Form
	Bundle    []byte // FormBundle: the bundle's JSON
	Payload   []byte // FormSimple: the signed JSON
	Signature []byte // FormSimple: the raw signature, base64 already undone
	From      string // where it was found, for messages only
}

// sealed is a candidate taken apart: what was signed is still unread.
type sealed struct {
	message   []byte // the exact bytes the signature covers
	signature []byte
	// claim reads what was signed, so it is called only after the signature was
	// found good. It returns nil if the signer vouches for the image d.
	claim func(d digest.Digest) error
}

func (c Candidate) open() (*sealed, error) {
	switch c.Form {
	case FormBundle:
		return openBundle(c.Bundle)
	case FormSimple:
		return openPayload(c.Payload, c.Signature)
	}
	return nil, fmt.Errorf("unknown signature form %q", c.Form)
}

// vouch returns the key that made the candidate and vouches for the image d by
// it. No key and no error means that none of the keys made it.
func (c Candidate) vouch(keys []Key, d digest.Digest) (*Key, error) {
	s, err := c.open()
	if err != nil {
		return nil, err
	}
	for i, k := range keys {
		if k.signed(s.message, s.signature) {
			return &keys[i], s.claim(d)
		}
	}
	return nil, nil
}

// otherImage says that a good signature is for another image.
type otherImage struct{ digest string }

func (o *otherImage) Error() string { return fmt.Sprintf("it is for %q", o.digest) }

// notForImage says that what a good signature covers is no image signature.
type notForImage struct{ what string }

func (n *notForImage) Error() string { return "it is " + n.what + ", not the signature of an image" }
