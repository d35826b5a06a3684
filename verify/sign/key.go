package sign

import (
	"bytes"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/updatectl/updatectl/verify"
)

// ErrKey says that a private key cannot be used.
var ErrKey = errors.New("unusable private key")

// LoadKey reads a private key in PEM form: cosign's own encrypted one, PKCS #8 (also encrypted), SEC 1 or PKCS #1.
// Password is asked only if the key is encrypted. The key must be of a kind that verify accepts.
func LoadKey(pemBytes []byte, password func() ([]byte, error)) (crypto.Signer, error) {
	block, _ := pem.Decode(pemBytes)
	if block == nil {
		return nil, fmt.Errorf("%w: not in PEM form", ErrKey)
	}
	if strings.Contains(block.Type, "PUBLIC") {
		return nil, fmt.Errorf("%w: it is a public key, and the private one signs", ErrKey)
	}
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(pemBytes, func(bool) ([]byte, error) {
		if password == nil {
			return nil, errors.New("it is encrypted and there is no password")
		}
		word, err := password()
		if word == nil {
			word = []byte{} // nil would tell sigstore that the key is not encrypted
		}
		return bytes.Clone(word), err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: a %T cannot sign", ErrKey, private)
	}
	if _, err := PublicKey("", signer); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return signer, nil
}

// PublicKey returns the public half as verify knows it.
func PublicKey(name string, signer crypto.Signer) (verify.Key, error) {
	text, err := cryptoutils.MarshalPublicKeyToPEM(signer.Public())
	if err != nil {
		return verify.Key{}, err
	}
	return verify.ParseKey(name, text)
}
