package verify

import (
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/root"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
)

// LogRule says what proof of a transparency log a signature must carry.
type LogRule string

const (
	// LogRequired asks for the proof of a log in the trust root.
	LogRequired LogRule = "required"
	// LogOptional takes a signature without any log entry; one that it has must be good.
	LogOptional LogRule = "optional"
	// LogOff does not look at log entries.
	LogOff LogRule = "off"
)

func (l LogRule) valid() bool { return l == LogRequired || l == LogOptional || l == LogOff }

// maxTrustRoot bounds a trust root. That of the public Sigstore has 7 KiB.
const maxTrustRoot = 1 << 20

// TrustRoot is what a Sigstore deployment is known by: its certificate authorities, transparency logs and timestamp
// authorities. It is pinned: only a new file changes it.
type TrustRoot struct {
	name     string
	material *root.TrustedRoot
}

// ParseTrustRoot reads a trusted_root.json. The error is ErrTrustRoot.
func ParseTrustRoot(name string, data []byte) (*TrustRoot, error) {
	if len(data) > maxTrustRoot {
		return nil, fmt.Errorf("%w %s: it is larger than %d bytes", ErrTrustRoot, name, maxTrustRoot)
	}
	r := &TrustRoot{name: name}
	err := caught(func() (err error) {
		r.material, err = root.NewTrustedRootFromJSON(data)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrTrustRoot, name, err)
	}
	return r, nil
}

// check says whether the trust root can answer what a rule asks of it.
func (r *TrustRoot) check(log LogRule, keyless bool) error {
	switch {
	case !log.valid():
		return fmt.Errorf("log is %q and not required, optional or off", log)
	case r == nil && (keyless || log != LogOff):
		return fmt.Errorf("it needs a trust root")
	case r == nil:
		return nil
	case keyless && len(r.material.FulcioCertificateAuthorities()) == 0:
		return fmt.Errorf("the trust root %s has no certificate authority", r.name)
	case log == LogRequired && len(r.material.RekorLogs()) == 0:
		return fmt.Errorf("the trust root %s has no transparency log", r.name)
	case keyless && log == LogOff && len(r.material.TimestampingAuthorities()) == 0:
		return fmt.Errorf("without a log only a timestamp authority tells when a certificate signed, and the trust root %s has none", r.name)
	}
	return nil
}

// verifier returns the library's procedure for a signature with a certificate. When it signed is told by the log or by
// a timestamp authority, never by the clock of this host: the certificate lived for minutes.
func (r *TrustRoot) verifier(log LogRule, logged bool) (*sigstore.Verifier, error) {
	var o []sigstore.VerifierOption
	if log == LogRequired || log == LogOptional && logged {
		o = append(o, sigstore.WithTransparencyLog(1), sigstore.WithObserverTimestamps(1))
	} else {
		o = append(o, sigstore.WithSignedTimestamps(1))
	}
	// Where certificates are logged, too, one that is not was made in secret.
	if len(r.material.CTLogs()) > 0 {
		o = append(o, sigstore.WithSignedCertificateTimestamps(1))
	}
	return sigstore.NewVerifier(r.material, o...)
}
