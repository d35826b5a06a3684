package verify

import (
	"bytes"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/updatectl/updatectl/verify/exactjson"
)

// The bounds of what is read. Exceeding one is an error; nothing is truncated.
const (
	MaxManifest   = 4 << 20 // bytes of a manifest or index, as the distribution specification suggests
	MaxBundle     = 1 << 20 // bytes of a signature bundle; real ones have 1 to 10 KiB
	MaxCandidates = 64      // signatures read for one digest
)

// Voucher says who vouched for content, in which form, and what proves it.
type Voucher struct {
	Signer string `json:"signer"`           // name of the key, or subject of the certificate
	KeyID  string `json:"key_id,omitempty"` // of a key
	Issuer string `json:"issuer,omitempty"` // who certified the subject
	Form   Form   `json:"form"`
	// Log is the proven entry in a transparency log, and SignedAt the earliest proven time of the signature. Both are
	// zero if the rule requires no proof.
	Log      LogEntry  `json:"log,omitzero"`
	SignedAt time.Time `json:"signed_at,omitzero"`
}

// who returns the same text for two signatures by the same person, or "" for a key.
func (v Voucher) who() string { return v.KeyID + "\x00" + v.Issuer + "\x00" + v.subject() }

func (v Voucher) subject() string {
	if v.KeyID != "" {
		return "" // the name of a key is arbitrary
	}
	return v.Signer
}

// Verified is content that a policy has accepted. Only [Policy.Verify] and [Verified.Descend] make one.
type Verified struct {
	content   []byte
	digest    digest.Digest
	mediaType string
	vouchers  []Voucher
	accepted  []Candidate // the accepted signatures
	parent    *Verified   // the index that lists the content
}

// Bytes returns the verified content. The caller must not change it.
func (v *Verified) Bytes() []byte { return v.content }

// Digest returns the sha256 digest of the content.
func (v *Verified) Digest() digest.Digest { return v.digest }

// MediaType returns the media type of the content.
func (v *Verified) MediaType() string { return v.mediaType }

// Vouchers returns who vouched, in the order of the policy's rules.
func (v *Verified) Vouchers() []Voucher { return v.vouchers }

// Descend returns content that a verified index lists as d: who vouched for the index also vouched for what it lists.
// The error is an ErrNotTrusted.
func (v *Verified) Descend(d ocispec.Descriptor, content []byte) (*Verified, error) {
	listed, err := v.listed(d)
	if err != nil {
		return nil, err
	}
	if listed.Size > MaxManifest {
		return nil, &refused{fmt.Sprintf("the manifest %s is larger than %d bytes", listed.Digest, MaxManifest),
			ErrMalformed}
	}
	if int64(len(content)) != listed.Size {
		return nil, &refused{fmt.Sprintf("%s must have %d bytes and was served with %d", listed.Digest, listed.Size,
			len(content)), ErrDigest}
	}
	if got := digest.SHA256.FromBytes(content); got != listed.Digest {
		return nil, &refused{fmt.Sprintf("the content served as %s has the digest %s", listed.Digest, got), ErrDigest}
	}
	if err := checkContent(content, listed.MediaType); err != nil {
		return nil, fmt.Errorf("cannot accept %s: %w", listed.Digest, err)
	}
	return &Verified{content: bytes.Clone(content), digest: listed.Digest, mediaType: listed.MediaType,
		vouchers: v.vouchers, parent: v}, nil
}

// listed returns the descriptor with which the index lists d.
func (v *Verified) listed(d ocispec.Descriptor) (ocispec.Descriptor, error) {
	if !IsIndex(v.mediaType) {
		return ocispec.Descriptor{}, &refused{fmt.Sprintf("%s is no index", v.digest), ErrMalformed}
	}
	var index ocispec.Index
	if err := exactjson.Unmarshal(v.content, &index); err != nil {
		return ocispec.Descriptor{}, &refused{fmt.Sprintf("cannot read the index %s: %v", v.digest, err), ErrMalformed}
	}
	for _, l := range index.Manifests {
		if l.Digest == d.Digest && l.Size == d.Size && l.MediaType == d.MediaType {
			return l, nil
		}
	}
	return ocispec.Descriptor{},
		&refused{fmt.Sprintf("%s (%d bytes of %s) is not listed in %s", d.Digest, d.Size, d.MediaType, v.digest),
			ErrUnsigned}
}
