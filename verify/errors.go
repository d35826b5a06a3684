package verify

import "errors"

// ErrNotTrusted is the parent of every refusal of this package: errors.Is
// finds it in each of the errors below.
var ErrNotTrusted = errors.New("not trusted")

var (
	// ErrUnsigned means that nothing found vouches for the content as an image.
	ErrUnsigned = refusal("unsigned")
	// ErrWrongKey means that signatures were found, none by a configured key.
	ErrWrongKey = refusal("not signed by a configured key")
	// ErrThreshold means that fewer distinct keys vouched than the policy asks for.
	ErrThreshold = refusal("not signed by enough keys")
	// ErrDigest means that content does not match the digest it must have.
	ErrDigest = refusal("content does not match its digest")
	// ErrMalformed means that the bytes are not what they claim to be.
	ErrMalformed = refusal("malformed")
)

// ErrKey says that a public key cannot be used. It is a mistake in the
// configuration and no verdict about an image, so it is not ErrNotTrusted.
var ErrKey = errors.New("unusable public key")

// refused is an error whose text is a whole sentence of its own and whose
// class is one of the sentinels above.
type refused struct {
	text  string
	class error
}

func (r *refused) Error() string { return r.text }
func (r *refused) Unwrap() error { return r.class }

// refusal makes a sentinel below ErrNotTrusted.
func refusal(text string) error { return &refused{text, ErrNotTrusted} }
