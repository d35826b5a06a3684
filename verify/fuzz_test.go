package verify_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"slices"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/updatectl/updatectl/verify"
)

// A bundle only vouches for the image that it was made for, however it is changed.
func FuzzBundle(f *testing.F) {
	image := read(f, "image.json")
	other := bytes.Replace(image, []byte(`"size":`), []byte(`"size": `), 1)
	addSeeds(f, [][]byte{
		read(f, "ecdsa.cosign3.bundle.json"),
		read(f, "ecdsa.cosign3.annotated.bundle.json"),
		read(f, "ecdsa.cosign3.sbom.bundle.json"),
		read(f, "rsa.cosign3.bundle.json"),
		read(f, "other.cosign3.bundle.json"),
	})
	p := verify.Policy{Keys: []verify.Key{key(f, "ecdsa.pub"), key(f, "rsa.pub")}}
	f.Fuzz(func(t *testing.T, bundle []byte) {
		c := []verify.Candidate{{Form: verify.FormBundle, Bundle: bundle}}
		if v, err := p.Verify(other, manifestType, c); err == nil {
			t.Errorf("vouches for content nobody signed: %v", v.Vouchers())
		}
		if v, err := p.Verify(image, manifestType, c); err == nil && len(v.Vouchers()) != 1 {
			t.Errorf("passes with %d vouchers", len(v.Vouchers()))
		}
	})
}

// A payload is accepted only with the exact bytes that were signed.
func FuzzPayload(f *testing.F) {
	image := read(f, "image.json")
	var real [][]byte
	var sigs [][]byte
	for _, name := range []string{"ecdsa.cosign2", "ecdsa.cosign3", "ed25519.cosign3", "rsa.cosign3"} {
		c := realSimple(f, name)
		real, sigs = append(real, c.Payload), append(sigs, c.Signature)
	}
	addSeeds(f, real)
	p := verify.Policy{Keys: []verify.Key{key(f, "ecdsa.pub"), key(f, "ed25519.pub"), key(f, "rsa.pub")}}
	f.Fuzz(func(t *testing.T, payload []byte) {
		for i, sig := range sigs {
			_, err := p.Verify(image, manifestType,
				[]verify.Candidate{{Form: verify.FormSimple, Payload: payload, Signature: sig}})
			if (err == nil) != bytes.Equal(payload, real[i]) {
				t.Errorf("signature %d and %q: %v", i, payload, err)
			}
		}
	})
}

// Whatever a key signed, reading it ends with a verdict and not with a panic.
func FuzzSignedPayload(f *testing.F) {
	image := read(f, "image.json")
	addSeeds(f, [][]byte{read(f, "ecdsa.cosign2.payload.json"), []byte(`{"critical":{"type":""}}`)})
	a := newSigner(f, "a.pub")
	other := bytes.Replace(image, []byte(`"size":`), []byte(`"size": `), 1)
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, c := range []verify.Candidate{a.payload(string(payload)),
			a.envelope(verify.BundlePayloadType, string(payload))} {
			if _, err := (verify.Policy{Keys: []verify.Key{a.Key}}).Verify(other, manifestType,
				[]verify.Candidate{c}); err == nil && !bytes.Contains(payload, []byte("sha256")) {
				t.Errorf("vouches without naming a digest: %q", payload)
			}
		}
	})
}

// FuzzKey: a key that is accepted is public, and is the same when it was written and read.
func FuzzKey(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	public, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		f.Fatal(err)
	}
	private, err := cryptoutils.MarshalPrivateKeyToPEM(key)
	if err != nil {
		f.Fatal(err)
	}
	twice := append(slices.Clone(public), public...)
	for _, seed := range [][]byte{public, private, twice, []byte("-----BEGIN X-----\n")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := verify.ParseKey("k", text)
		if err != nil {
			if !errors.Is(err, verify.ErrKey) {
				t.Errorf("%v has no class", err)
			}
			return
		}
		again, err := cryptoutils.MarshalPublicKeyToPEM(k.Public)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := verify.ParseKey("k", again); err != nil || same.ID != k.ID {
			t.Errorf("the key %s was read again as %s (%v)", k.ID, same.ID, err)
		}
	})
}
