package verify_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/verifytest"
)

// evidenceOf signs an index that lists the image, with a key and an identity.
func evidenceOf(t testing.TB, d *deployment, a *signer) (verify.Policy, verify.Evidence) {
	t.Helper()
	image := read(t, "image.json")
	index, err := json.Marshal(ocispec.Index{MediaType: indexType,
		Manifests: []ocispec.Descriptor{{MediaType: manifestType, Digest: digest.FromBytes(image),
			Size: int64(len(image))}}})
	if err != nil {
		t.Fatal(err)
	}
	index = bytes.Replace(index, []byte(`"schemaVersion":0`), []byte(`"schemaVersion":2`), 1)
	p := verify.Policy{Keys: []verify.Key{a.Key}, Identities: []verify.Identity{d.trusts(alice)}, Threshold: 2}
	rubbish := verify.Candidate{Form: verify.FormBundle, Bundle: []byte("{}")}
	v, err := p.Verify(index, indexType,
		[]verify.Candidate{rubbish, d.bundle(verifytest.Signing{Subject: alice, Issuer: issuer}, index),
			a.simple(index), a.bundle(index)})
	if err != nil {
		t.Fatal(err)
	}
	if v, err = v.Descend(ocispec.Descriptor{MediaType: manifestType, Digest: digest.FromBytes(image),
		Size: int64(len(image))}, image); err != nil {
		t.Fatal(err)
	}
	return p, v.Evidence()
}

// Evidence is accepted again, and only for what it was made for.
func TestEvidence(t *testing.T) {
	d, a := newDeployment(t), newSigner(t, "a.pub")
	p, kept := evidenceOf(t, d, a)
	if len(kept.Chain) != 2 || len(kept.Signatures) != 2 {
		t.Fatalf("%d documents and %d signatures", len(kept.Chain), len(kept.Signatures))
	}
	one := p
	one.Threshold = 1
	stranger := verify.Policy{Keys: []verify.Key{newSigner(t, "b.pub").Key}}
	revoked := one
	revoked.Identities, revoked.Keys = nil, []verify.Key{a.Key}
	revoked.Keys[0].Revoked = true

	for name, test := range map[string]struct {
		policy verify.Policy
		bend   func(*verify.Evidence)
		err    error
	}{
		"as it was":             {p, func(*verify.Evidence) {}, nil},
		"under a milder policy": {one, func(*verify.Evidence) {}, nil},
		"under another policy":  {stranger, func(*verify.Evidence) {}, verify.ErrWrongKey},
		"key revoked since":     {revoked, func(*verify.Evidence) {}, verify.ErrRevoked},
		"a signature less": {p, func(e *verify.Evidence) { e.Signatures = e.Signatures[:1] },
			verify.ErrThreshold},
		"no signatures": {p, func(e *verify.Evidence) { e.Signatures = nil }, verify.ErrUnsigned},
		"nothing":       {p, func(e *verify.Evidence) { *e = verify.Evidence{} }, verify.ErrUnsigned},
		"other index": {p,
			func(e *verify.Evidence) { e.Chain[0].Content = append(e.Chain[0].Content, ' ') }, verify.ErrDigest},
		"other manifest": {p,
			func(e *verify.Evidence) { e.Chain[1].Content = append(e.Chain[1].Content, ' ') }, verify.ErrUnsigned},
		"manifest of another type": {p, func(e *verify.Evidence) { e.Chain[1].MediaType = verify.DockerManifest },
			verify.ErrUnsigned},
		"index of another type": {p, func(e *verify.Evidence) { e.Chain[0].MediaType = manifestType },
			verify.ErrMalformed},
		"the manifest without index": {p, func(e *verify.Evidence) { e.Chain = e.Chain[1:] }, verify.ErrDigest},
		"something below the manifest": {p, func(e *verify.Evidence) { e.Chain = append(e.Chain, e.Chain[1]) },
			verify.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := kept.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			e, err := verify.ParseEvidence(data)
			if err != nil {
				t.Fatal(err)
			}
			test.bend(&e)
			v, err := test.policy.Again(e)
			checkVerdict(t, v, err, test.err, "")
		})
	}
	for name, text := range map[string]string{
		"empty": "", "no object": "[]", "another schema": `{"schema":"updatectl.evidence/v2","chain":[{}]}`,
		"no chain":    `{"schema":"updatectl.evidence/v1"}`,
		"long chain":  `{"schema":"updatectl.evidence/v1","chain":[{},{},{},{}]}`,
		"a key twice": `{"schema":"updatectl.evidence/v1","chain":[{}],"Chain":[{}]}`,
		"no base64":   `{"schema":"updatectl.evidence/v1","chain":[{"content":"?"}]}`,
		"too large":   strings.Repeat(" ", verify.MaxEvidence) + "{}",
	} {
		if _, err := verify.ParseEvidence([]byte(text)); !errors.Is(err, verify.ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
