package verify

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
)

// Identity is somebody who signs without a key to keep: a certificate authority has certified for a few minutes that
// an issuer knows a subject by that name. However many people fit the rule, it counts as one signer.
type Identity struct {
	Issuer  Match // of the token, as "https://token.actions.githubusercontent.com"
	Subject Match // a mail address, or a workflow's URI
	Root    *TrustRoot
	Log     LogRule // "" means LogRequired
}

// Match is a text that must be met exactly or by a pattern, not both. A pattern is a regular expression in Go's syntax
// and must match the whole text.
type Match struct {
	Exact   string
	Pattern string
}

// String writes the rule for people.
func (m Match) String() string {
	if m.Pattern != "" {
		return "/" + m.Pattern + "/"
	}
	return m.Exact
}

// anchored returns the pattern as one that nothing can precede or follow, or "" for an exact match.
func (m Match) anchored() (string, error) {
	if (m.Exact == "") == (m.Pattern == "") {
		return "", errors.New("it must be given exactly or as a pattern")
	}
	if m.Pattern == "" {
		return "", nil
	}
	// By itself first: a pattern such as "a)|(?:b" would close the group below.
	if _, err := regexp.Compile(m.Pattern); err != nil {
		return "", err
	}
	return `\A(?:` + m.Pattern + `)\z`, nil
}

// String names the rule in messages.
func (i Identity) String() string { return fmt.Sprintf("%s of %s", i.Subject, i.Issuer) }

// patterns says how wide the rule is: 0 for one exact identity.
func (i Identity) patterns() int {
	n := 0
	for _, m := range []Match{i.Subject, i.Issuer} {
		if m.Pattern != "" {
			n++
		}
	}
	return n
}

// identitySigner is an identity that a policy can work with.
type identitySigner struct {
	Identity
	match sigstore.CertificateIdentity
}

func (i Identity) signer() (*identitySigner, error) {
	if i.Log == "" {
		i.Log = LogRequired
	}
	issuer, err := i.Issuer.anchored()
	if err != nil {
		return nil, fmt.Errorf("%w %s: issuer: %w", ErrIdentity, i, err)
	}
	subject, err := i.Subject.anchored()
	if err != nil {
		return nil, fmt.Errorf("%w %s: subject: %w", ErrIdentity, i, err)
	}
	if err := i.Root.check(i.Log, true); err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrIdentity, i, err)
	}
	match, err := sigstore.NewShortCertificateIdentity(i.Issuer.Exact, issuer, i.Subject.Exact, subject)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrIdentity, i, err)
	}
	return &identitySigner{i, match}, nil
}

func (i *identitySigner) name() string { return i.String() }

// vouch has the library go through the whole of Sigstore's client procedure: log, time, certificate, signature,
// identity.
func (i *identitySigner) vouch(s *sealed, _ time.Time) (v *Voucher, err error) {
	if !s.keyless {
		return nil, nil
	}
	err = caught(func() (err error) {
		v, err = i.verify(s)
		return err
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (i *identitySigner) verify(s *sealed) (*Voucher, error) {
	e, err := newEntity(s)
	if err != nil {
		return nil, err
	}
	verifier, err := i.Root.verifier(i.Log, e.logged())
	if err != nil {
		return nil, err
	}
	result, err := verifier.Verify(e, sigstore.NewPolicy(e.signed(), sigstore.WithCertificateIdentity(i.match)))
	if err != nil {
		return nil, i.diagnose(e, err)
	}
	who := result.Signature.Certificate
	v := &Voucher{Signer: who.SubjectAlternativeName, Issuer: who.Issuer, Form: s.form}
	var seen []time.Time
	for _, t := range result.VerifiedTimestamps {
		seen = append(seen, t.Timestamp)
	}
	v.SignedAt = earliest(seen)
	if i.Log != LogOff && e.logged() {
		if v.Log, err = e.logEntry(i.Root.material); err != nil {
			return nil, err
		}
	}
	return v, nil
}
