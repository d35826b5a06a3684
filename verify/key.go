package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// minRSABits is the shortest RSA key that is accepted, as in NIST SP 800-131A.
const minRSABits = 2048

// Key is a public key whose signatures are accepted.
type Key struct {
	Name   string           // its name in messages, usually that of the file
	Public crypto.PublicKey // ECDSA P-256, Ed25519 or RSA of at least 2048 bits
	ID     string           // sha256:HEX of its SubjectPublicKeyInfo in DER

	// NotAfter is when the key expires; the zero value means never. A signature that is proven to be older is still
	// accepted.
	NotAfter time.Time
	// Revoked means that no signature by the key is accepted, and Reason says why. If the key is listed twice, this
	// takes precedence.
	Revoked bool
	Reason  string
	// Log says which proof by a transparency log is required; "" means LogOff. Root has the logs, and may be nil with
	// LogOff.
	Log  LogRule
	Root *TrustRoot
}

// ParseKey reads a public key in PEM form. The error is an ErrKey.
func ParseKey(name string, pemBytes []byte) (Key, error) {
	block, rest := pem.Decode(pemBytes)
	if block == nil {
		return Key{}, fmt.Errorf("%w %s: it is not in PEM form", ErrKey, name)
	}
	if strings.Contains(block.Type, "PRIVATE") {
		return Key{}, fmt.Errorf("%w %s: it is a private key: use the public one", ErrKey, name)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return Key{}, fmt.Errorf("%w %s: it contains more than one key", ErrKey, name)
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(pemBytes)
	if err != nil {
		return Key{}, fmt.Errorf("%w %s: %w", ErrKey, name, err)
	}
	k := Key{Name: name, Public: public}
	if k.ID, err = keyID(public); err != nil {
		return Key{}, fmt.Errorf("%w %s: %w", ErrKey, name, err)
	}
	return k, nil
}

// keyID checks that the type of a key is supported, and returns its ID.
func keyID(public crypto.PublicKey) (string, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k == nil || k.Curve != elliptic.P256() {
			return "", errors.New("an ECDSA key must be on the curve P-256")
		}
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return "", fmt.Errorf("an Ed25519 key must have %d bytes", ed25519.PublicKeySize)
		}
	case *rsa.PublicKey:
		if k == nil || k.N == nil || k.N.BitLen() < minRSABits {
			return "", fmt.Errorf("an RSA key must have at least %d bits", minRSABits)
		}
	default:
		return "", fmt.Errorf("keys of type %T are not supported: use ECDSA P-256, Ed25519 or RSA", public)
	}
	der, err := cryptoutils.MarshalPublicKeyToDER(public)
	if err != nil {
		return "", err
	}
	return digest.SHA256.FromBytes(der).String(), nil
}

// signed reports whether the key made the signature sig of message.
func (k Key) signed(message, sig []byte) bool {
	for _, v := range k.verifiers() {
		if v.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message)) == nil {
			return true
		}
	}
	return false
}

// verifiers returns the schemes for a key of this type. For Ed25519 there are two: cosign uses Ed25519ph, which signs
// a hash, and most other tools use plain Ed25519. By the design in RFC 8032, a signature of one scheme is never valid
// in the other.
func (k Key) verifiers() []signature.Verifier {
	var all []signature.Verifier
	if v, err := signature.LoadVerifier(k.Public, crypto.SHA256); err == nil {
		all = append(all, v)
	}
	if public, ok := k.Public.(ed25519.PublicKey); ok {
		if v, err := signature.LoadED25519phVerifier(public); err == nil {
			all = append(all, v)
		}
	}
	return all
}
