package verify

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
)

// diagnose finds out why the library refused a signature with a certificate. It repeats the steps of the library one
// by one, and checks who signed before it checks when. Its result is only used for the message.
//
// Without an error, the trust root does not know the signer.
func (i *identitySigner) diagnose(e *entity, refusal error) error {
	content, err := e.VerificationContent()
	if err != nil {
		return err
	}
	leaf := content.Certificate()
	if leaf == nil {
		return refusal
	}
	if !i.issued(leaf) {
		return nil
	}
	who, err := certificate.SummarizeCertificate(leaf)
	if err != nil {
		return err
	}
	if err := i.match.Verify(who); err != nil {
		return &refused{fmt.Sprintf("it is signed by %q of %q, and the policy asks for %s", who.SubjectAlternativeName,
			who.Issuer, i), ErrWrongIdentity}
	}
	if !e.signedBy(content, i.Root.material) {
		return nil // the certificate is not that of the signer
	}
	subject := who.SubjectAlternativeName
	if err := i.diagnoseLog(e, content); err != nil {
		return fmt.Errorf("the signature by %s %w", subject, err)
	}
	stamps, problems, err := sigstore.VerifySignedTimestamp(e, i.Root.material)
	if i.Log == LogOff || !e.logged() {
		if err != nil || len(stamps) == 0 {
			return &refused{fmt.Sprintf("nothing proves when %s signed: %v", subject,
				reason("it has no timestamp", append(problems, err)...)), ErrTimestamp}
		}
	}
	for _, s := range stamps {
		if s.Time.Before(leaf.NotBefore) || s.Time.After(leaf.NotAfter) {
			return expiredAt(subject, s.Time, leaf)
		}
	}
	if err := i.diagnoseCertificateLog(leaf); err != nil {
		return &refused{fmt.Sprintf("the certificate of %s is in no certificate log: %v", subject, err), ErrLog}
	}
	return &refused{fmt.Sprintf("cannot accept the signature by %s: %v", subject, refusal), ErrMalformed}
}

func (i *identitySigner) diagnoseCertificateLog(leaf *x509.Certificate) error {
	if len(i.Root.material.CTLogs()) == 0 {
		return nil
	}
	chains, err := sigstore.VerifyLeafCertificate(leaf.NotBefore, leaf, i.Root.material)
	if err != nil {
		return err
	}
	return sigstore.VerifySignedCertificateTimestamp(chains, 1, i.Root.material)
}

// diagnoseLog checks the log entries. The text of the error continues "the signature by …".
func (i *identitySigner) diagnoseLog(e *entity, content sigstore.VerificationContent) error {
	if i.Log == LogOff || i.Log == LogOptional && !e.logged() {
		return nil
	}
	if !e.logged() {
		return &refused{"has no entry of a transparency log, and the policy asks for one", ErrLog}
	}
	seen, err := sigstore.VerifyTlogEntry(e, i.Root.material, 1, true)
	switch {
	case err == nil && len(seen) == 0:
		// A proof of inclusion without the log's promise does not prove the time.
		if stamps, _, err := sigstore.VerifySignedTimestamp(e, i.Root.material); err != nil || len(stamps) == 0 {
			return &refused{"has a log entry without a promise and no timestamp: nothing proves when it was made",
				ErrTimestamp}
		}
		return nil
	case err == nil:
		return nil
	}
	if seen, again := sigstore.VerifyTlogEntry(timeless{e}, i.Root.material, 1, true); again == nil {
		leaf := content.Certificate()
		for _, s := range seen {
			return expiredAt("", s.Time, leaf)
		}
		return &refused{"was logged when its certificate was not valid", ErrExpired}
	}
	return &refused{fmt.Sprintf("is not proved by its log entries: %v", err), ErrLog}
}

// expiredAt returns the error for a certificate that was not valid when it signed.
func expiredAt(subject string, signed time.Time, leaf *x509.Certificate) error {
	when := fmt.Sprintf("was made at %s, and its certificate was valid from %s to %s", stamp(signed),
		stamp(leaf.NotBefore), stamp(leaf.NotAfter))
	if subject != "" {
		when = fmt.Sprintf("the signature by %s %s", subject, when)
	}
	return &refused{when, ErrExpired}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// issued reports whether a certificate authority of the trust root issued the certificate, at any time.
func (i *identitySigner) issued(leaf *x509.Certificate) bool {
	unknown := leaf.UnhandledCriticalExtensions
	defer func() { leaf.UnhandledCriticalExtensions = unknown }()
	leaf.UnhandledCriticalExtensions = nil // this is only used for messages
	_, err := sigstore.VerifyLeafCertificate(leaf.NotBefore, leaf, i.Root.material)
	return err == nil
}

// signedBy reports whether the key in the certificate made the signature.
func (e *entity) signedBy(content sigstore.VerificationContent, r root.TrustedMaterial) bool {
	signature, err := e.SignatureContent()
	if err != nil {
		return false
	}
	if e.GetDsseEnvelope() != nil {
		return sigstore.VerifySignature(signature, content, r) == nil
	}
	return sigstore.VerifySignatureWithArtifacts(signature, content, r,
		[]io.Reader{bytes.NewReader(e.artifact)}) == nil
}

// timeless is an entity whose certificate is always valid.
type timeless struct{ *entity }

func (t timeless) VerificationContent() (sigstore.VerificationContent, error) {
	content, err := t.entity.VerificationContent()
	return always{content}, err
}

type always struct{ sigstore.VerificationContent }

func (always) ValidAtTime(time.Time, root.TrustedMaterial) bool { return true }

// reason joins problems, or returns the standard text if there are none.
func reason(standard string, problems ...error) error {
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return errors.New(standard)
}
