package verify

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits on what is looked at. More is an error, never a truncation.
const (
	MaxManifest   = 4 << 20 // bytes of a manifest or index, the distribution spec's own suggestion
	MaxBundle     = 1 << 20 // bytes of one signature bundle; real ones have 1 to 10 KiB
	MaxCandidates = 64      // signatures looked at for one digest
)

// Voucher names a key that vouched for the content, and in which form.
type Voucher struct {
	Signer string `json:"signer"`
	KeyID  string `json:"keyId"`
	Form   Form   `json:"form"`
}

// Verified is content that a policy let pass. Only [Policy.Verify] and
// [Verified.Descend] make one.
type Verified struct {
	content   []byte
	digest    digest.Digest
	mediaType string
	vouchers  []Voucher
}

// Bytes returns the verified content. The caller must not change it.
func (v *Verified) Bytes() []byte { return v.content }

// Digest returns the sha256 digest of the content.
func (v *Verified) Digest() digest.Digest { return v.digest }

// MediaType returns the media type of the content.
func (v *Verified) MediaType() string { return v.mediaType }

// Vouchers returns the keys that vouched, in the order of the policy's keys.
func (v *Verified) Vouchers() []Voucher { return v.vouchers }

// Descend returns content that a verified index lists as d.
func (v *Verified) Descend(d ocispec.Descriptor, content []byte) (*Verified, error) {
	return nil, ErrDigest
}
