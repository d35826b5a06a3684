package sign

import (
	"crypto"
	"encoding/json"

	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/verify"
)

// payload is the simple-signing document of containers-signature(5), with the fields in the order of cosign.
type payload struct {
	Critical critical       `json:"critical"`
	Optional map[string]any `json:"optional"`
}

type critical struct {
	Identity struct {
		Reference string `json:"docker-reference"`
	} `json:"identity"`
	Image struct {
		Digest string `json:"docker-manifest-digest"`
	} `json:"image"`
	Type string `json:"type"`
}

// Simple returns a simple-signing payload for the image, which names a repository, and the raw signature of the
// payload.
func Simple(signer crypto.Signer, repository string, image digest.Digest) (payloadJSON, sig []byte, err error) {
	if err := checkDigest(image); err != nil {
		return nil, nil, err
	}
	p := payload{Critical: critical{Type: verify.PayloadType}}
	p.Critical.Identity.Reference = repository
	p.Critical.Image.Digest = image.String()
	if payloadJSON, err = json.Marshal(p); err != nil {
		return nil, nil, err
	}
	sig, err = signMessage(signer, payloadJSON)
	return payloadJSON, sig, err
}
