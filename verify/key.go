package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// minRSABits is the shortest RSA key accepted, as in NIST SP 800-131A.
const minRSABits = 2048

// Key is a public key that may vouch for images.
type Key struct {
	Name   string           // how messages call it, usually the file's name
	Public crypto.PublicKey // ECDSA P-256, Ed25519 or RSA of at least 2048 bits
	ID     string           // "sha256:<hex>" of its SubjectPublicKeyInfo in DER

	// NotAfter is when the key stops to count; zero means never. A signature that Log proves to be older goes on
	// counting.
	NotAfter time.Time
	// Revoked says that the key does not count, whatever it signed and when, and Reason why. It wins over the same key
	// listed again.
	Revoked bool
	Reason  string
	// Log is what proof of a transparency log is asked for; "" means LogOff. Root, which may be nil without one, names
	// the logs.
	Log  LogRule
	Root *TrustRoot
}

// ParseKey reads one PEM public key. The error is ErrKey.
func ParseKey(name string, pemBytes []byte) (Key, error) {
	block, rest := pem.Decode(pemBytes)
	if block == nil {
		return Key{}, fmt.Errorf("%w %s: not in PEM form", ErrKey, name)
	}
	if strings.Contains(block.Type, "PRIVATE") {
		return Key{}, fmt.Errorf("%w %s: it is a private key, and the host needs only the public one", ErrKey, name)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return Key{}, fmt.Errorf("%w %s: there is more in it than one key", ErrKey, name)
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

// keyID checks that the key is of a kind the policy accepts and returns the name that two copies of it share.
func keyID(public crypto.PublicKey) (string, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k == nil || k.Curve != elliptic.P256() {
			return "", fmt.Errorf("an ECDSA key must be on curve P-256")
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

// signed says whether the key made sig over message.
func (k Key) signed(message, sig []byte) bool {
	for _, v := range k.verifiers() {
		if v.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message)) == nil {
			return true
		}
	}
	return false
}

// verifiers returns the schemes in which cosign signs with a key of this kind. With Ed25519 these are two: Ed25519ph,
// which signs a hash, in cosign, and plain Ed25519 in most other tools. RFC 8032 keeps them apart, so that a signature
// of one kind never passes as one of the other.
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
