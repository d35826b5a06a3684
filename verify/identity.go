package verify

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
)

// Identity is a rule for keyless signers. A certificate authority certifies for a few minutes that an issuer knows the
// subject by that name. The rule counts as one signer, even if several people match.
type Identity struct {
	Issuer  Match // of the token, such as https://token.actions.githubusercontent.com
	Subject Match // a mail address, or the URI of a workflow
	Root    *TrustRoot
	Log     LogRule // "" means LogRequired
	// Reason says why the identity is revoked, in [Policy].Revoked.
	Reason string
}

// Match is an exact text or a pattern, not both. A pattern is a regular expression in Go's syntax that must match the
// whole text.
type Match struct {
	Exact   string
	Pattern string
}

// String returns the rule as text for people.
func (m Match) String() string {
	if m.Pattern != "" {
		return "/" + m.Pattern + "/"
	}
	return m.Exact
}

// anchored returns the pattern so that it matches whole texts only, or "" for an exact match.
func (m Match) anchored() (string, error) {
	if (m.Exact == "") == (m.Pattern == "") {
		return "", errors.New("it must be given exactly or as a pattern, not both")
	}
	if m.Pattern == "" {
		return "", nil
	}
	// The pattern is compiled alone first: one such as "a)|(?:b" would close the group below.
	if _, err := regexp.Compile(m.Pattern); err != nil {
		return "", err
	}
	return `\A(?:` + m.Pattern + `)\z`, nil
}

// String returns the name of the rule in messages.
func (i Identity) String() string { return fmt.Sprintf("%s of %s", i.Subject, i.Issuer) }

// patterns returns the number of patterns in the rule: 0 for an exact identity.
func (i Identity) patterns() int {
	n := 0
	for _, m := range []Match{i.Subject, i.Issuer} {
		if m.Pattern != "" {
			n++
		}
	}
	return n
}

// identitySigner is an identity that was checked.
type identitySigner struct {
	Identity
	match   sigstore.CertificateIdentity
	revoked []revokedMatch
}

// revokedMatch matches identities that are revoked.
type revokedMatch struct {
	Identity
	match sigstore.CertificateIdentity
}

// revokedMatches returns what matches identities that are revoked.
func revokedMatches(identities []Identity) ([]revokedMatch, error) {
	var all []revokedMatch
	for _, i := range identities {
		match, err := i.certificate()
		if err != nil {
			return nil, err
		}
		all = append(all, revokedMatch{i, match})
	}
	return all, nil
}

// certificate returns the rule in the form of the library.
func (i Identity) certificate() (match sigstore.CertificateIdentity, err error) {
	issuer, err := i.Issuer.anchored()
	if err != nil {
		return match, fmt.Errorf("%w %s: issuer: %w", ErrIdentity, i, err)
	}
	subject, err := i.Subject.anchored()
	if err != nil {
		return match, fmt.Errorf("%w %s: subject: %w", ErrIdentity, i, err)
	}
	match, err = sigstore.NewShortCertificateIdentity(i.Issuer.Exact, issuer, i.Subject.Exact, subject)
	if err != nil {
		return match, fmt.Errorf("%w %s: %w", ErrIdentity, i, err)
	}
	return match, nil
}

// whyRevoked returns an error that wraps [ErrRevoked] if who vouched is revoked.
func (i *identitySigner) whyRevoked(v Voucher) error {
	for _, r := range i.revoked {
		if matches(r.match, v) {
			why := ""
			if r.Reason != "" {
				why = ": " + r.Reason
			}
			return &refused{fmt.Sprintf("%s signed it and is revoked%s", v.Signer, why), ErrRevoked}
		}
	}
	return nil
}

// matches reports whether a rule is about the identity that vouched.
func matches(rule sigstore.CertificateIdentity, v Voucher) bool {
	return rule.Verify(certificate.Summary{
		SubjectAlternativeName: v.Signer, Extensions: certificate.Extensions{Issuer: v.Issuer},
	}) == nil
}

func (i Identity) signer() (*identitySigner, error) {
	if i.Log == "" {
		i.Log = LogRequired
	}
	match, err := i.certificate()
	if err != nil {
		return nil, err
	}
	if err := i.Root.check(i.Log, true); err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrIdentity, i, err)
	}
	return &identitySigner{Identity: i, match: match}, nil
}

func (i *identitySigner) name() string { return i.String() }

// vouch runs the complete client procedure of Sigstore: log, time, certificate, signature, identity.
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
	if err := i.whyRevoked(*v); err != nil {
		return nil, err
	}
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
