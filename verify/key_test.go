package verify_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/updatectl/updatectl/verify"
)

func TestParseKey(t *testing.T) {
	text := func(k crypto.PublicKey, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		pem, err := cryptoutils.MarshalPublicKeyToPEM(k)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem)
	}
	p384 := func() (crypto.PublicKey, error) {
		k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		return k.Public(), err
	}
	small := func() (crypto.PublicKey, error) {
		t.Setenv("GODEBUG", "rsa1024min=0") // GenerateKey refuses less than 1024 otherwise
		k, err := rsa.GenerateKey(rand.Reader, 1024)
		return k.Public(), err
	}
	good := string(read(t, "ecdsa.pub"))
	tests := []struct {
		name, pem, says string // if says is empty, the key is accepted
	}{
		{"ECDSA P-256", good, ""},
		{"Ed25519", string(read(t, "ed25519.pub")), ""},
		{"RSA 2048", string(read(t, "rsa.pub")), ""},
		{"a comment before it", "release key\n" + good, ""},
		{"ECDSA P-384", text(p384()), "curve P-256"},
		{"RSA 1024", text(small()), "at least 2048 bits"},
		{"empty", "", "not in PEM form"},
		{"two keys", good + good, "more than one key"},
		{"a tail", good + "x", "more than one key"},
		{"private key", strings.ReplaceAll(good, "PUBLIC", "PRIVATE"), "private key"},
		{"certificate", strings.ReplaceAll(good, "PUBLIC KEY", "CERTIFICATE"), "unknown Public key PEM file type"},
		{"rubbish inside", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "asn1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			k, err := verify.ParseKey("release.pub", []byte(test.pem))
			if test.says == "" {
				if err != nil || k.Name != "release.pub" || k.Public == nil || !strings.HasPrefix(k.ID, "sha256:") {
					t.Fatalf("got %+v, %v", k, err)
				}
				return
			}
			if !errors.Is(err, verify.ErrKey) || errors.Is(err, verify.ErrNotTrusted) {
				t.Fatalf("got %v, want ErrKey", err)
			}
			if !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "release.pub") {
				t.Errorf("says %q, want %q and the name in it", err, test.says)
			}
		})
	}
}

// The ID is the hint of the key in cosign's bundles, in hex.
func TestKeyID(t *testing.T) {
	const want = "sha256:5fe447d3c4c96674b46b9fbe65f562743b9084e1d1d1d065d930204d9a0cef83"
	if got := key(t, "ecdsa.pub").ID; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
