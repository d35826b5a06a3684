package verify_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

// testdata was written by cosign: *.cosign3.* by 3.1.1, *.cosign2.* by 2.5.0, all for image.json, with the private
// keys of the .pub files.

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func key(t testing.TB, name string) verify.Key {
	t.Helper()
	k, err := verify.ParseKey(name, read(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func realBundle(t testing.TB, name string) verify.Candidate {
	t.Helper()
	return verify.Candidate{Form: verify.FormBundle, Bundle: read(t, name), From: name}
}

func realSimple(t testing.TB, name string) verify.Candidate {
	t.Helper()
	sig, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(read(t, name+".sig"))))
	if err != nil {
		t.Fatal(err)
	}
	return verify.Candidate{Form: verify.FormSimple, Payload: read(t, name+".payload.json"), Signature: sig,
		From: name}
}

// signer is a new key, and what a publisher does with it.
type signer struct {
	t       testing.TB
	private crypto.Signer
	Key     verify.Key
}

func newSigner(t testing.TB, name string) *signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := sign.PublicKey(name, private)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{t, private, k}
}

func (s *signer) bundle(content []byte) verify.Candidate {
	b, err := sign.Bundle(s.private, digest.FromBytes(content))
	if err != nil {
		s.t.Fatal(err)
	}
	return verify.Candidate{Form: verify.FormBundle, Bundle: b, From: "test"}
}

func (s *signer) simple(content []byte) verify.Candidate {
	p, sig, err := sign.Simple(s.private, "registry.example.org/os", digest.FromBytes(content))
	if err != nil {
		s.t.Fatal(err)
	}
	return verify.Candidate{Form: verify.FormSimple, Payload: p, Signature: sig, From: "test"}
}

// payload signs any text as a simple-signing payload.
func (s *signer) payload(text string) verify.Candidate {
	return verify.Candidate{Form: verify.FormSimple, Payload: []byte(text), Signature: s.sign([]byte(text)),
		From: "test"}
}

// envelope signs any text in a bundle of any payload type.
func (s *signer) envelope(payloadType, text string) verify.Candidate {
	b, err := json.Marshal(map[string]any{
		"mediaType":            verify.BundleMediaType,
		"verificationMaterial": map[string]any{"publicKey": map[string]string{"hint": ""}},
		"dsseEnvelope": map[string]any{
			"payload": []byte(text), "payloadType": payloadType,
			"signatures": []any{map[string]any{"sig": s.sign(dsse.PAE(payloadType, []byte(text)))}},
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return verify.Candidate{Form: verify.FormBundle, Bundle: b, From: "test"}
}

func (s *signer) sign(message []byte) []byte {
	hash := crypto.SHA256.New()
	hash.Write(message)
	sig, err := s.private.Sign(rand.Reader, hash.Sum(nil), crypto.SHA256)
	if err != nil {
		s.t.Fatal(err)
	}
	return sig
}

const (
	manifestType = ocispec.MediaTypeImageManifest
	indexType    = ocispec.MediaTypeImageIndex
)
