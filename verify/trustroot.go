package verify

import (
	"errors"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/root"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
)

// LogRule says which proof by a transparency log a signature must have.
type LogRule string

const (
	// LogRequired requires a proof by a log in the trust root.
	LogRequired LogRule = "required"
	// LogOptional accepts a signature without log entries. If there are any, they must be good.
	LogOptional LogRule = "optional"
	// LogOff ignores log entries.
	LogOff LogRule = "off"
)

// Rank returns how strict the rule is, from 0 for [LogOff] and "" to 2 for [LogRequired].
func (l LogRule) Rank() int {
	switch l {
	case LogRequired:
		return 2
	case LogOptional:
		return 1
	}
	return 0
}

func (l LogRule) valid() bool { return l == LogRequired || l == LogOptional || l == LogOff }

// maxTrustRoot bounds a trust root, in bytes. That of the public Sigstore has 7 KiB.
const maxTrustRoot = 1 << 20

// TrustRoot has the certificate authorities, transparency logs and timestamp authorities of a Sigstore deployment. It
// is pinned: it only changes with its file.
type TrustRoot struct {
	name     string
	content  []byte
	material *root.TrustedRoot
}

// ParseTrustRoot reads a trusted_root.json. The error is an ErrTrustRoot.
func ParseTrustRoot(name string, data []byte) (*TrustRoot, error) {
	if len(data) > maxTrustRoot {
		return nil, fmt.Errorf("%w %s: it is larger than %d bytes", ErrTrustRoot, name, maxTrustRoot)
	}
	r := &TrustRoot{name: name, content: data}
	err := caught(func() (err error) {
		r.material, err = root.NewTrustedRootFromJSON(data)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrTrustRoot, name, err)
	}
	return r, nil
}

// Bytes returns the trusted_root.json. The caller must not change it.
func (r *TrustRoot) Bytes() []byte { return r.content }

// check checks that the trust root has what a rule needs.
func (r *TrustRoot) check(log LogRule, keyless bool) error {
	switch {
	case !log.valid():
		return fmt.Errorf("log is %q and not required, optional or off", log)
	case r == nil && (keyless || log != LogOff):
		return errors.New("it needs a trust root")
	case r == nil:
		return nil
	case keyless && len(r.material.FulcioCertificateAuthorities()) == 0:
		return fmt.Errorf("the trust root %s has no certificate authority", r.name)
	case log == LogRequired && len(r.material.RekorLogs()) == 0:
		return fmt.Errorf("the trust root %s has no transparency log", r.name)
	case keyless && log == LogOff && len(r.material.TimestampingAuthorities()) == 0:
		return fmt.Errorf("without a log, a timestamp authority must prove when a certificate signed, and the trust "+
			"root %s has none", r.name)
	}
	return nil
}

// verifier returns the verifier of the library for signatures with a certificate. The certificate is valid for
// minutes, so a log or a timestamp authority must prove when it signed; the clock of the host is not used.
func (r *TrustRoot) verifier(log LogRule, logged bool) (*sigstore.Verifier, error) {
	var o []sigstore.VerifierOption
	if log == LogRequired || log == LogOptional && logged {
		o = append(o, sigstore.WithTransparencyLog(1), sigstore.WithObserverTimestamps(1))
	} else {
		o = append(o, sigstore.WithSignedTimestamps(1))
	}
	// If the deployment logs certificates, one that is not logged was made in secret.
	if len(r.material.CTLogs()) > 0 {
		o = append(o, sigstore.WithSignedCertificateTimestamps(1))
	}
	return sigstore.NewVerifier(r.material, o...)
}
