package verify

import "crypto"

// Key is a public key that may vouch for images.
type Key struct {
	Name   string           // how messages call it, usually the file's name
	Public crypto.PublicKey // ECDSA P-256, Ed25519 or RSA of at least 2048 bits
	ID     string           // "sha256:<hex>" of its SubjectPublicKeyInfo in DER
}

// ParseKey reads one PEM public key.
func ParseKey(name string, pemBytes []byte) (Key, error) {
	return Key{}, ErrKey
}
