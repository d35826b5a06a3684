package verify

import "errors"

// ErrNotTrusted is the parent of every refusal of this package: errors.Is finds it in each of the errors below.
var ErrNotTrusted = errors.New("not trusted")

var (
	// ErrUnsigned means that nothing found vouches for the content as an image.
	ErrUnsigned = refusal("unsigned")
	// ErrWrongKey means that signatures were found, none by a configured key or under a pinned trust root.
	ErrWrongKey = refusal("not signed by a configured key")
	// ErrWrongIdentity means that a pinned trust root knows the signer, and no rule names it.
	ErrWrongIdentity = refusal("not signed by a configured identity")
	// ErrRevoked means that a configured key signed that is revoked.
	ErrRevoked = refusal("signed by a revoked key")
	// ErrExpired means that a configured key or a certificate signed outside the time in which it counts.
	ErrExpired = refusal("signed by what had expired")
	// ErrLog means that the proof of a transparency log is missing or wrong.
	ErrLog = refusal("no proof of a transparency log")
	// ErrTimestamp means that nothing proves when a certificate signed.
	ErrTimestamp = refusal("no proof of when it was signed")
	// ErrThreshold means that fewer distinct signers vouched than the policy asks for.
	ErrThreshold = refusal("not signed by enough signers")
	// ErrDigest means that content does not match the digest it must have.
	ErrDigest = refusal("content does not match its digest")
	// ErrMalformed means that the bytes are not what they claim to be.
	ErrMalformed = refusal("malformed")
)

// What a policy cannot work with is a mistake in the configuration and no verdict about an image, so these are not
// ErrNotTrusted.
var (
	// ErrKey says that a public key cannot be used.
	ErrKey = errors.New("unusable public key")
	// ErrIdentity says that an identity rule cannot be used.
	ErrIdentity = errors.New("unusable identity")
	// ErrTrustRoot says that a trust root cannot be used.
	ErrTrustRoot = errors.New("unusable trust root")
)

// refused is an error whose text is a whole sentence of its own and whose class is one of the sentinels above.
type refused struct {
	text  string
	class error
}

func (r *refused) Error() string { return r.text }
func (r *refused) Unwrap() error { return r.class }

// refusal makes a sentinel below ErrNotTrusted.
func refusal(text string) error { return &refused{text, ErrNotTrusted} }
