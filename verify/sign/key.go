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

// ErrKey means that a private key cannot be used.
var ErrKey = errors.New("unusable private key")

// ErrNoKey means that there is no private key in what was given, encrypted or not. It is an ErrKey.
var ErrNoKey = fmt.Errorf("%w", ErrKey)

// LoadKey reads a private key in PEM form: the encrypted form of cosign, PKCS #8 (also encrypted), SEC 1 or PKCS #1.
// password is called only if the key is encrypted. The type of the key must be one that package verify supports. The
// error is an ErrKey.
func LoadKey(pemBytes []byte, password func() ([]byte, error)) (crypto.Signer, error) {
	block, _ := pem.Decode(pemBytes)
	if block == nil {
		return nil, fmt.Errorf("%w: it is not in PEM form", ErrNoKey)
	}
	if strings.Contains(block.Type, "PUBLIC") {
		return nil, fmt.Errorf("%w: it is a public key: sign with the private one", ErrNoKey)
	}
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(pemBytes, func(bool) ([]byte, error) {
		if password == nil {
			return nil, errors.New("it is encrypted, and there is no password")
		}
		word, err := password()
		if word == nil {
			word = []byte{} // for sigstore, nil means that the key is not encrypted
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

// PublicKey returns the public half of a key.
func PublicKey(name string, signer crypto.Signer) (verify.Key, error) {
	text, err := cryptoutils.MarshalPublicKeyToPEM(signer.Public())
	if err != nil {
		return verify.Key{}, err
	}
	return verify.ParseKey(name, text)
}
