package verify

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
)

// PayloadType is what a simple-signing payload must say of itself. See containers-signature(5).
const PayloadType = "cosign container image signature"

// maxPayload bounds a simple-signing payload. Real ones have 250 bytes.
const maxPayload = 64 << 10

// openPayload takes a simple-signing signature apart without reading what is signed in it.
func openPayload(c Candidate) (*sealed, error) {
	if len(c.Payload) > maxPayload {
		return nil, fmt.Errorf("the payload is larger than %d bytes", maxPayload)
	}
	return &sealed{
		form:      FormSimple,
		keyless:   len(c.Certificate) > 0,
		proofs:    func() (*bundlepb.Bundle, error) { return simpleProofs(c) },
		artifact:  c.Payload,
		message:   c.Payload,
		signature: c.Signature,
		claim:     func(d digest.Digest) error { return readPayload(c.Payload, d) },
	}, nil
}

// readPayload checks that a simple-signing payload is the signature of the image d. The docker-reference in it is not
// compared: a mirror has another.
func readPayload(payload []byte, d digest.Digest) error {
	var p struct {
		Critical struct {
			Type  string `json:"type"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	if err := parseJSON(payload, &p); err != nil {
		return fmt.Errorf("cannot read the signed payload: %w", err)
	}
	if p.Critical.Type != PayloadType {
		return &notForImage{fmt.Sprintf("a payload of type %q", p.Critical.Type)}
	}
	if p.Critical.Image.Digest != d.String() {
		return &otherImage{p.Critical.Image.Digest}
	}
	return nil
}
