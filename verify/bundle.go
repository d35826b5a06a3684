package verify

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/updatectl/updatectl/verify/exactjson"
	"google.golang.org/protobuf/encoding/protojson"
)

// The types that a bundle must have to be cosign's signature of an image.
const (
	BundleMediaType     = "application/vnd.dev.sigstore.bundle.v0.3+json"
	BundlePayloadType   = "application/vnd.in-toto+json"
	BundleStatementType = "https://in-toto.io/Statement/v1"
	BundlePredicateType = "https://sigstore.dev/cosign/sign/v1"
)

// maxSubjects bounds how many images a statement may be about. That of cosign is about one.
const maxSubjects = 64

// openBundle parses a bundle, but not what is signed in it.
func openBundle(data []byte) (*sealed, error) {
	if len(data) > MaxBundle {
		return nil, fmt.Errorf("the bundle is larger than %d bytes", MaxBundle)
	}
	var b bundlepb.Bundle
	if err := protojson.Unmarshal(data, &b); err != nil {
		return nil, fmt.Errorf("it is not a bundle: %w", err)
	}
	if b.GetMediaType() != BundleMediaType {
		return nil, fmt.Errorf("the bundle has the media type %q and not %s", b.GetMediaType(), BundleMediaType)
	}
	env := b.GetDsseEnvelope()
	if env == nil {
		return nil, errors.New("the bundle has no DSSE envelope")
	}
	if n := len(env.GetSignatures()); n != 1 {
		return nil, fmt.Errorf("the envelope of the bundle has %d signatures and not one", n)
	}
	return &sealed{
		form:      FormBundle,
		keyless:   b.GetVerificationMaterial().GetCertificate() != nil,
		proofs:    func() (*bundlepb.Bundle, error) { return &b, nil },
		message:   dsse.PAE(env.GetPayloadType(), env.GetPayload()),
		signature: env.GetSignatures()[0].GetSig(),
		claim: func(d digest.Digest) error {
			if env.GetPayloadType() != BundlePayloadType {
				return &notForImage{fmt.Sprintf("of type %q", env.GetPayloadType())}
			}
			return readStatement(env.GetPayload(), d)
		},
	}, nil
}

// readStatement checks that an in-toto statement is cosign's signature of the image d.
func readStatement(payload []byte, d digest.Digest) error {
	var s struct {
		Type          string `json:"_type"`
		PredicateType string `json:"predicateType"`
		Subject       []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := exactjson.Unmarshal(payload, &s); err != nil {
		return fmt.Errorf("cannot read the signed statement: %w", err)
	}
	if s.PredicateType != BundlePredicateType {
		return &notForImage{fmt.Sprintf("a statement of type %q", s.PredicateType)}
	}
	if s.Type != BundleStatementType {
		return fmt.Errorf("the signed statement is of type %q and not %s", s.Type, BundleStatementType)
	}
	if n := len(s.Subject); n == 0 || n > maxSubjects {
		return fmt.Errorf("the signed statement has %d subjects", n)
	}
	other := &otherImage{}
	for _, subject := range s.Subject {
		hex := subject.Digest[digest.SHA256.String()]
		if hex == d.Encoded() {
			return nil
		}
		other.digest = digest.SHA256.String() + ":" + hex
	}
	return other
}
