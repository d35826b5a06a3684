package verify

// Form is one of the two shapes in which cosign publishes a signature.
type Form string

const (
	// FormBundle is the Sigstore bundle that cosign 3 attaches as a referrer.
	FormBundle Form = "bundle"
	// FormSimple is the simple-signing payload that cosign 2 wrote to the tag
	// sha256-<hex>.sig.
	FormSimple Form = "simple-signing"
)

// Candidate is one signature that was found for a digest. Nothing about it is
// trusted: whoever may write to the registry may have put it there.
type Candidate struct {
	Form      Form
	Bundle    []byte // FormBundle: the bundle's JSON
	Payload   []byte // FormSimple: the signed JSON
	Signature []byte // FormSimple: the raw signature, base64 already undone
	From      string // where it was found, for messages only
}
