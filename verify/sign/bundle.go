package sign

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	dssepb "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/updatectl/updatectl/verify"
)

// statement is the in-toto statement that cosign 3 signs.
type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     struct{}  `json:"predicate"`
}

type subject struct {
	Digest map[string]string `json:"digest"`
}

// Bundle returns a Sigstore bundle, as JSON, with the signature of the image.
func Bundle(signer crypto.Signer, image digest.Digest) ([]byte, error) {
	if err := checkDigest(image); err != nil {
		return nil, err
	}
	hint, err := keyHint(signer)
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(statement{
		Type:          verify.BundleStatementType,
		Subject:       []subject{{Digest: map[string]string{digest.SHA256.String(): image.Encoded()}}},
		PredicateType: verify.BundlePredicateType,
	})
	if err != nil {
		return nil, err
	}
	sig, err := signMessage(signer, dsse.PAE(verify.BundlePayloadType, payload))
	if err != nil {
		return nil, err
	}
	return marshalBundle(&bundlepb.Bundle{
		MediaType: verify.BundleMediaType,
		VerificationMaterial: &bundlepb.VerificationMaterial{
			Content: &bundlepb.VerificationMaterial_PublicKey{PublicKey: &commonpb.PublicKeyIdentifier{Hint: hint}},
		},
		Content: &bundlepb.Bundle_DsseEnvelope{DsseEnvelope: &dssepb.Envelope{
			Payload:     payload,
			PayloadType: verify.BundlePayloadType,
			Signatures:  []*dssepb.Signature{{Sig: sig}},
		}},
	})
}

// marshalBundle removes the random white space of protojson, because a bundle is a blob with a digest.
func marshalBundle(b *bundlepb.Bundle) ([]byte, error) {
	text, err := protojson.Marshal(b)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// keyHint returns the name that cosign gives a key in a bundle: the base64 of the sha256 of its SubjectPublicKeyInfo.
func keyHint(signer crypto.Signer) (string, error) {
	key, err := PublicKey("", signer)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrKey, err)
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(key.ID, digest.SHA256.String()+":"))
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(sum), nil
}

func signMessage(signer crypto.Signer, message []byte) ([]byte, error) {
	s, err := signature.LoadSigner(signer, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return s.SignMessage(bytes.NewReader(message))
}

// ErrDigest means that a digest cannot be signed, because cosign's signatures need sha256.
var ErrDigest = errors.New("not a sha256 digest")

func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("cannot sign %q: %w", d, ErrDigest)
	}
	return nil
}
