package verify

import "errors"

// ErrNotTrusted is the parent of all errors about content that is not trusted.
var ErrNotTrusted = errors.New("not trusted")

var (
	// ErrUnsigned means that no signature of the content as an image was found.
	ErrUnsigned = refusal("unsigned")
	// ErrWrongKey means that signatures were found, but none by a configured key or under a pinned trust root.
	ErrWrongKey = refusal("not signed by a configured key")
	// ErrWrongIdentity means that a pinned trust root knows the signer, but no rule matches it.
	ErrWrongIdentity = refusal("not signed by a configured identity")
	// ErrRevoked means that a revoked key signed the content.
	ErrRevoked = refusal("signed by a revoked key")
	// ErrExpired means that a key or a certificate was not valid when it signed.
	ErrExpired = refusal("signed by an expired key or certificate")
	// ErrLog means that the proof by a transparency log is missing or wrong.
	ErrLog = refusal("no proof by a transparency log")
	// ErrTimestamp means that nothing proves when a certificate signed the content.
	ErrTimestamp = refusal("no proof of when it was signed")
	// ErrThreshold means that fewer distinct signers vouched than the policy requires.
	ErrThreshold = refusal("not signed by enough signers")
	// ErrDigest means that content does not have the digest that it must have.
	ErrDigest = refusal("content does not match its digest")
	// ErrMalformed means that the bytes are not what they claim to be.
	ErrMalformed = refusal("malformed")
)

// These errors are about the configuration and not about an image, so they are no ErrNotTrusted.
var (
	// ErrKey means that a public key cannot be used.
	ErrKey = errors.New("unusable public key")
	// ErrIdentity means that an identity rule cannot be used.
	ErrIdentity = errors.New("unusable identity")
	// ErrTrustRoot means that a trust root cannot be used.
	ErrTrustRoot = errors.New("unusable trust root")
)

// refused is an error with a text of its own and one of the classes above.
type refused struct {
	text  string
	class error
}

func (r *refused) Error() string { return r.text }
func (r *refused) Unwrap() error { return r.class }

// refusal returns an error whose parent is ErrNotTrusted.
func refusal(text string) error { return &refused{text, ErrNotTrusted} }
