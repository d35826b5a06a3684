package sign_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

var image = []byte(`{"schemaVersion":2,"config":{},"layers":[]}`)

// pemOf writes a private key as PKCS #8.
func pemOf(t *testing.T, private any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Package verify accepts signatures by all types of keys and in both forms, for this image only.
func TestWhatWeSignVerifies(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]any{
		"ECDSA":   must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"Ed25519": ed,
		"RSA":     must(rsa.GenerateKey(rand.Reader, 2048)),
	}
	for name, private := range keys {
		t.Run(name, func(t *testing.T) {
			signer, err := sign.LoadKey(pemOf(t, private), nil)
			if err != nil {
				t.Fatal(err)
			}
			d := digest.FromBytes(image)
			payload, sig := simple(t, signer, d)
			candidates := []verify.Candidate{
				{Form: verify.FormBundle, Bundle: must(sign.Bundle(signer, d))},
				{Form: verify.FormSimple, Payload: payload, Signature: sig},
			}
			policy := verify.Policy{Keys: []verify.Key{must(sign.PublicKey("release.pub", signer))}}
			for _, c := range candidates {
				if _, err := policy.Verify(image, ocispec.MediaTypeImageManifest, []verify.Candidate{c}); err != nil {
					t.Errorf("%s: %v", c.Form, err)
				}
				other := append([]byte(" "), image...)
				if _, err := policy.Verify(other, ocispec.MediaTypeImageManifest,
					[]verify.Candidate{c}); !errors.Is(err, verify.ErrDigest) {
					t.Errorf("%s of another image: %v", c.Form, err)
				}
			}
		})
	}
}

func simple(t *testing.T, signer crypto.Signer, d digest.Digest) (payload, sig []byte) {
	t.Helper()
	payload, sig, err := sign.Simple(signer, "registry.example.org/os", d)
	if err != nil {
		t.Fatal(err)
	}
	return payload, sig
}

// testdata/cosign.key was made for this test by cosign 3.1.1, with the password "release". It is not used for anything
// else.
func TestLoadCosignKey(t *testing.T) {
	private := must(os.ReadFile("testdata/cosign.key"))
	public := must(verify.ParseKey("cosign.pub", must(os.ReadFile("testdata/cosign.pub"))))
	signer, err := sign.LoadKey(private, func() ([]byte, error) { return []byte("release"), nil })
	if err != nil {
		t.Fatal(err)
	}
	if got := must(sign.PublicKey("", signer)); got.ID != public.ID {
		t.Errorf("loaded key %s, want %s", got.ID, public.ID)
	}
}

func TestLoadKeyRefuses(t *testing.T) {
	cosign := must(os.ReadFile("testdata/cosign.key"))
	p384 := pemOf(t, must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)))
	none := errors.New("no terminal")
	word := func(w string, err error) func() ([]byte, error) {
		return func() ([]byte, error) { return []byte(w), err }
	}
	tests := []struct {
		name     string
		pem      []byte
		password func() ([]byte, error)
		says     string
	}{
		{"wrong password", cosign, word("other", nil), "decrypt"},
		{"empty password", cosign, word("", nil), "decrypt"},
		{"no password", cosign, nil, "encrypted"},
		{"password cannot be read", cosign, word("", none), none.Error()},
		{"public key", must(os.ReadFile("testdata/cosign.pub")), nil, "public key"},
		{"no PEM", []byte("key"), nil, "PEM"},
		{"other curve", p384, nil, "P-256"},
		{"cut", bytes.Replace(p384, []byte("PRIVATE"), []byte("SECRET"), 2), nil, "unknown"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			signer, err := sign.LoadKey(test.pem, test.password)
			if !errors.Is(err, sign.ErrKey) || signer != nil {
				t.Fatalf("got %v, %v", signer, err)
			}
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("says %q, want %q in it", err, test.says)
			}
		})
	}
}

// cosign's signatures can only name sha256 digests.
func TestDigestRefused(t *testing.T) {
	signer := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	for _, d := range []digest.Digest{"", "sha256:00", digest.SHA512.FromString("x")} {
		if _, err := sign.Bundle(signer, d); !errors.Is(err, sign.ErrDigest) {
			t.Errorf("bundle of %q: %v", d, err)
		}
		if _, _, err := sign.Simple(signer, "x", d); !errors.Is(err, sign.ErrDigest) {
			t.Errorf("payload of %q: %v", d, err)
		}
	}
}
