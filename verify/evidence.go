package verify

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// EvidenceSchema is the schema of kept evidence.
	EvidenceSchema = "updatectl.evidence/v1"
	// MaxEvidence bounds kept evidence in bytes of JSON. Real evidence has 10 to 100 KiB; this is what the largest
	// that can be accepted comes to in base64.
	MaxEvidence = (maxChain*MaxManifest+MaxCandidates*(MaxBundle+4*maxAnnotation))/3*4 + 1<<20
	// maxChain is how many documents lead from the signed one to the image's manifest: at most a release, an index and
	// the manifest.
	maxChain = 3
)

// Evidence is everything that led to a verdict, so that it can be reached again without the source: the signed
// document, what leads from there to the verified one, and the signatures that counted. It is as little trusted as
// what a registry serves; only [Policy.Again] makes something of it.
type Evidence struct {
	Schema     string      `json:"schema"`
	Chain      []Document  `json:"chain"` // the signed one first, each listing the next
	Signatures []Candidate `json:"signatures"`
}

// Document is a manifest or an index, byte by byte.
type Document struct {
	MediaType string `json:"media_type"`
	Content   []byte `json:"content"`
}

// Evidence returns what led to the verdict.
func (v *Verified) Evidence() Evidence {
	e := Evidence{Schema: EvidenceSchema}
	for ; v != nil; v = v.parent {
		e.Chain = append(e.Chain, Document{MediaType: v.mediaType, Content: v.content})
		e.Signatures = v.accepted
	}
	slices.Reverse(e.Chain)
	return e
}

// ParseEvidence reads kept evidence. The error is ErrMalformed.
func ParseEvidence(data []byte) (Evidence, error) {
	var e Evidence
	if len(data) > MaxEvidence {
		return e, &refused{fmt.Sprintf("the evidence is larger than %d bytes", MaxEvidence), ErrMalformed}
	}
	if err := parseJSON(data, &e); err != nil {
		return Evidence{}, &refused{fmt.Sprintf("cannot read the evidence: %v", err), ErrMalformed}
	}
	if e.Schema != EvidenceSchema {
		return Evidence{}, &refused{fmt.Sprintf("the evidence has schema %q and not %q", e.Schema, EvidenceSchema), ErrMalformed}
	}
	if n := len(e.Chain); n == 0 || n > maxChain {
		return Evidence{}, &refused{fmt.Sprintf("the evidence has a chain of %d documents", n), ErrMalformed}
	}
	return e, nil
}

// Bytes returns the evidence as JSON, to keep.
func (e Evidence) Bytes() ([]byte, error) { return json.MarshalIndent(e, "", "  ") }

// Again reaches the verdict from kept evidence: by this policy, which need not be the one of that time.
func (p Policy) Again(e Evidence) (*Verified, error) {
	if len(e.Chain) == 0 {
		return nil, &refused{"there is no evidence", ErrUnsigned}
	}
	v, err := p.Verify(e.Chain[0].Content, e.Chain[0].MediaType, e.Signatures)
	if err != nil {
		return nil, err
	}
	for _, next := range e.Chain[1:] {
		d := ocispec.Descriptor{MediaType: next.MediaType, Digest: digest.SHA256.FromBytes(next.Content), Size: int64(len(next.Content))}
		if v, err = v.Descend(d, next.Content); err != nil {
			return nil, err
		}
	}
	return v, nil
}
