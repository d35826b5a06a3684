package verify

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/updatectl/updatectl/verify/exactjson"
)

// PayloadType is the type that a simple-signing payload must have (containers-signature(5)).
const PayloadType = "cosign container image signature"

// maxPayload bounds a simple-signing payload, in bytes. Real ones have 250.
const maxPayload = 64 << 10

// openPayload parses a simple-signing signature, but not what is signed in it.
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
// compared, because a mirror has another one.
func readPayload(payload []byte, d digest.Digest) error {
	var p struct {
		Critical struct {
			Type  string `json:"type"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	if err := exactjson.Unmarshal(payload, &p); err != nil {
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
