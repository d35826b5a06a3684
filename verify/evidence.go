package verify

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/updatectl/updatectl/verify/exactjson"
)

const (
	// EvidenceSchema is the schema of stored evidence.
	EvidenceSchema = "updatectl.evidence/v1"
	// MaxEvidence bounds stored evidence, in bytes of JSON. It allows for the largest evidence that is possible, in
	// base64; real evidence has 10 to 100 KiB.
	MaxEvidence = (maxChain*MaxManifest+MaxCandidates*(MaxBundle+4*maxAnnotation))/3*4 + 1<<20
	// maxChain bounds the documents from the signed one to the manifest of the image: a release, an index and the
	// manifest.
	maxChain = 3
)

// Evidence is all that a verdict is based on, so that it can be repeated without the source: the signed document, the
// documents from there to the verified one, and the accepted signatures. It is not trusted: [Policy.Again] verifies
// it.
type Evidence struct {
	Schema     string      `json:"schema"`
	Chain      []Document  `json:"chain"` // the signed one first; each lists the next
	Signatures []Candidate `json:"signatures"`
}

// Document is the bytes of a manifest or an index.
type Document struct {
	MediaType string `json:"media_type"`
	Content   []byte `json:"content"`
}

// Evidence returns what the verdict is based on.
func (v *Verified) Evidence() Evidence {
	e := Evidence{Schema: EvidenceSchema}
	for ; v != nil; v = v.parent {
		e.Chain = append(e.Chain, Document{MediaType: v.mediaType, Content: v.content})
		e.Signatures = v.accepted
	}
	slices.Reverse(e.Chain)
	return e
}

// ParseEvidence reads stored evidence. The error is an ErrMalformed.
func ParseEvidence(data []byte) (Evidence, error) {
	var e Evidence
	if len(data) > MaxEvidence {
		return e, &refused{fmt.Sprintf("the evidence is larger than %d bytes", MaxEvidence), ErrMalformed}
	}
	if err := exactjson.Unmarshal(data, &e); err != nil {
		return Evidence{}, &refused{fmt.Sprintf("cannot read the evidence: %v", err), ErrMalformed}
	}
	if e.Schema != EvidenceSchema {
		return Evidence{}, &refused{fmt.Sprintf("the evidence has the schema %q and not %q", e.Schema, EvidenceSchema),
			ErrMalformed}
	}
	if n := len(e.Chain); n == 0 || n > maxChain {
		return Evidence{}, &refused{fmt.Sprintf("the evidence has a chain of %d documents", n), ErrMalformed}
	}
	return e, nil
}

// Bytes returns the evidence as JSON, to be stored.
func (e Evidence) Bytes() ([]byte, error) { return json.MarshalIndent(e, "", "  ") }

// Again verifies stored evidence by this policy, which need not be the one it was accepted by. The error is an
// ErrNotTrusted.
func (p Policy) Again(e Evidence) (*Verified, error) {
	if len(e.Chain) == 0 {
		return nil, &refused{"there is no evidence", ErrUnsigned}
	}
	v, err := p.Verify(e.Chain[0].Content, e.Chain[0].MediaType, e.Signatures)
	if err != nil {
		return nil, err
	}
	for _, next := range e.Chain[1:] {
		d := ocispec.Descriptor{MediaType: next.MediaType, Digest: digest.SHA256.FromBytes(next.Content),
			Size: int64(len(next.Content))}
		if v, err = v.Descend(d, next.Content); err != nil {
			return nil, err
		}
	}
	return v, nil
}
