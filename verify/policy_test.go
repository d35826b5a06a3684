package verify_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/verify"
)

// The signatures of cosign are accepted, with each type of key and in each form.
func TestRealCosign(t *testing.T) {
	image := read(t, "image.json")
	for _, kind := range []string{"ecdsa", "ed25519", "rsa"} {
		candidates := map[string]verify.Candidate{
			"bundle":           realBundle(t, kind+".cosign3.bundle.json"),
			"simple, cosign 3": realSimple(t, kind+".cosign3"),
		}
		if kind != "rsa" {
			candidates["simple, cosign 2"] = realSimple(t, kind+".cosign2")
		}
		if kind == "ecdsa" {
			candidates["bundle with annotations"] = realBundle(t, "ecdsa.cosign3.annotated.bundle.json")
		}
		for name, c := range candidates {
			t.Run(kind+", "+name, func(t *testing.T) {
				p := verify.Policy{Keys: []verify.Key{key(t, "other.pub"), key(t, kind+".pub")}}
				v, err := p.Verify(image, manifestType, []verify.Candidate{c})
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(v.Bytes(), image) || v.Digest() != digest.FromBytes(image) ||
					v.MediaType() != manifestType {
					t.Errorf("verified something else: %s %s", v.Digest(), v.MediaType())
				}
				want := verify.Voucher{Signer: kind + ".pub", KeyID: key(t, kind+".pub").ID, Form: c.Form}
				if len(v.Vouchers()) != 1 || v.Vouchers()[0] != want {
					t.Errorf("vouchers %v, want %v", v.Vouchers(), want)
				}
				p.Keys = []verify.Key{key(t, "other.pub")}
				if _, err := p.Verify(image, manifestType, []verify.Candidate{c}); !errors.Is(err,
					verify.ErrWrongKey) {
					t.Errorf("with another key: %v", err)
				}
			})
		}
	}
}

// One good signature among others is enough. Otherwise the error has a sentinel and says why.
func TestVerdict(t *testing.T) {
	image := read(t, "image.json")
	tampered := bytes.Replace(image, []byte(`"size":`), []byte(`"size": `), 1)
	a, b, stranger := newSigner(t, "a.pub"), newSigner(t, "b.pub"), newSigner(t, "stranger.pub")
	again := a.Key
	again.Name, again.ID = "the-same.pub", "sha256:made-up"
	rubbish := verify.Candidate{Form: verify.FormBundle, Bundle: []byte("{"), From: "sha256:feed"}
	many := make([]verify.Candidate, verify.MaxCandidates+1)

	tests := []struct {
		name      string
		content   []byte
		keys      []verify.Key
		threshold int
		found     []verify.Candidate
		err       error  // nil if it is accepted
		says      string // part of the text of the error
	}{
		{"one of one", image, []verify.Key{a.Key}, 0, []verify.Candidate{a.bundle(image)}, nil, ""},
		{"rubbish beside it", image, []verify.Key{a.Key}, 1,
			[]verify.Candidate{rubbish, stranger.simple(image), a.simple(image), a.bundle(tampered)}, nil, ""},
		{"two of two, mixed forms", image, []verify.Key{a.Key, b.Key}, 2,
			[]verify.Candidate{a.bundle(image), b.simple(image)}, nil, ""},
		{"nothing", image, []verify.Key{a.Key}, 1, nil, verify.ErrUnsigned, "no signature was found for sha256:"},
		{"a stranger's", image, []verify.Key{a.Key, b.Key}, 1,
			[]verify.Candidate{stranger.bundle(image), stranger.simple(image), rubbish}, verify.ErrWrongKey,
			"3 signatures were found for sha256:"},
		{"a stranger's names the keys", image, []verify.Key{a.Key, b.Key}, 1,
			[]verify.Candidate{stranger.bundle(image)}, verify.ErrWrongKey, "none by a configured key (a.pub, b.pub)"},
		{"rubbish only", image, []verify.Key{a.Key}, 1, []verify.Candidate{rubbish}, verify.ErrMalformed,
			"sha256:feed"},
		{"unknown form", image, []verify.Key{a.Key}, 1, []verify.Candidate{{Form: "pgp"}}, verify.ErrMalformed,
			`unknown form "pgp"`},
		{"too many", image, []verify.Key{a.Key}, 1, many, verify.ErrMalformed, "65 signatures were found"},
		{"tampered, bundle", tampered, []verify.Key{a.Key}, 1, []verify.Candidate{a.bundle(image)}, verify.ErrDigest,
			"the signature by a.pub is for \"sha256:"},
		{"tampered, simple", tampered, []verify.Key{a.Key}, 1, []verify.Candidate{a.simple(image)}, verify.ErrDigest,
			"the signature by a.pub is for \"sha256:"},
		{"one of two", image, []verify.Key{a.Key, b.Key}, 2, []verify.Candidate{a.bundle(image), a.simple(image)},
			verify.ErrThreshold, "1 of the 2 signers needed vouched"},
		{"one key under two names", image, []verify.Key{a.Key, again, b.Key}, 2,
			[]verify.Candidate{a.bundle(image), a.simple(image)}, verify.ErrThreshold,
			"1 of the 2 signers needed vouched"},
		{"two names for the only key", image, []verify.Key{a.Key, again}, 2, []verify.Candidate{a.bundle(image)},
			verify.ErrThreshold, "only 1 are configured"},
		{"no keys", image, nil, 1, []verify.Candidate{a.bundle(image)}, verify.ErrWrongKey,
			"neither a key nor an identity"},
		{"an empty key", image, []verify.Key{{Name: "empty"}}, 1, []verify.Candidate{a.bundle(image)}, verify.ErrKey,
			"empty"},
		{"too large", make([]byte, verify.MaxManifest+1), []verify.Key{a.Key}, 1, []verify.Candidate{a.bundle(image)},
			verify.ErrMalformed, "larger than"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := verify.Policy{Keys: test.keys, Threshold: test.threshold}
			v, err := p.Verify(test.content, manifestType, test.found)
			checkVerdict(t, v, err, test.err, test.says)
		})
	}
}

// checkVerdict checks the sentinel and its parent, and that nothing is returned with the error.
func checkVerdict(t *testing.T, v *verify.Verified, err, want error, says string) {
	t.Helper()
	if want == nil {
		if err != nil || v == nil {
			t.Fatalf("refused: %v", err)
		}
		return
	}
	if !errors.Is(err, want) || v != nil {
		t.Fatalf("got %v, %v; want %v", v, err, want)
	}
	if want != verify.ErrKey && !errors.Is(err, verify.ErrNotTrusted) {
		t.Errorf("%v is not ErrNotTrusted", err)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("says %q, want %q in it", err, says)
	}
}

// What a configured key signed is parsed as strictly as anything else.
func TestClaims(t *testing.T) {
	image := read(t, "image.json")
	hex := digest.FromBytes(image).Encoded()
	a := newSigner(t, "a.pub")
	statement := func(kind, predicate, subjects string) verify.Candidate {
		return a.envelope(verify.BundlePayloadType,
			fmt.Sprintf(`{"_type":%q,"predicateType":%q,"subject":%s,"predicate":{}}`, kind, predicate, subjects))
	}
	good := fmt.Sprintf(`[{"digest":{"sha256":%q}}]`, hex)
	payload := func(kind, image, more string) verify.Candidate {
		return a.payload(fmt.Sprintf(`{"critical":{"identity":{"docker-reference":"x"},`+
			`"image":{"docker-manifest-digest":%q},"type":%q}%s,"optional":null}`, image, kind, more))
	}
	reframed := a.simple(image)
	reframed.Payload = append([]byte(" "), reframed.Payload...)

	tests := []struct {
		name string
		c    verify.Candidate
		err  error
		says string
	}{
		{"statement", statement(verify.BundleStatementType, verify.BundlePredicateType, good), nil, ""},
		{"one subject of two",
			statement(verify.BundleStatementType, verify.BundlePredicateType,
				fmt.Sprintf(`[{"digest":{"sha256":"00"}},{"digest":{"sha256":%q}}]`, hex)), nil, ""},
		{"bill of materials", statement(verify.BundleStatementType, "https://spdx.dev/Document", good),
			verify.ErrUnsigned, `a.pub signed a statement of type "https://spdx.dev/Document"`},
		{"no predicate type", statement(verify.BundleStatementType, "", good), verify.ErrUnsigned, `of type ""`},
		{"another statement type", statement("https://in-toto.io/Statement/v0.1", verify.BundlePredicateType, good),
			verify.ErrMalformed, "Statement/v0.1"},
		{"another payload type", a.envelope("text/plain", good), verify.ErrUnsigned, "text/plain"},
		{"no subject", statement(verify.BundleStatementType, verify.BundlePredicateType, `[]`), verify.ErrMalformed,
			"0 subjects"},
		{"too many subjects",
			statement(verify.BundleStatementType, verify.BundlePredicateType, "["+strings.Repeat(`{},`, 64)+"{}]"),
			verify.ErrMalformed, "65 subjects"},
		{"subject by sha512 only",
			statement(verify.BundleStatementType, verify.BundlePredicateType,
				fmt.Sprintf(`[{"digest":{"sha512":%q}}]`, hex)), verify.ErrDigest, "not for sha256:"},
		{"subject twice", a.envelope(verify.BundlePayloadType,
			fmt.Sprintf(`{"_type":%q,"predicateType":%q,"subject":[],"Subject":%s}`, verify.BundleStatementType,
				verify.BundlePredicateType, good)), verify.ErrMalformed, `"Subject", which is spelled "subject"`},
		{"statement with a tail", a.envelope(verify.BundlePayloadType, `{}{}`), verify.ErrMalformed,
			"something after the JSON object"},
		{"statement is a list", a.envelope(verify.BundlePayloadType, `[]`), verify.ErrMalformed, "not a JSON object"},
		{"deep statement", a.envelope(verify.BundlePayloadType, `{"a":`+strings.Repeat("[", 1000)),
			verify.ErrMalformed, "more than 32 levels"},

		{"payload", payload(verify.PayloadType, "sha256:"+hex, ""), nil, ""},
		{"payload of another type", payload("atomic container signature", "sha256:"+hex, ""), verify.ErrUnsigned,
			`a.pub signed a payload of type "atomic`},
		{"payload for another image", payload(verify.PayloadType, "sha256:00", ""), verify.ErrDigest,
			`is for "sha256:00"`},
		{"payload with critical twice", payload(verify.PayloadType, "sha256:"+hex, `,"critical":{}`),
			verify.ErrMalformed, `"critical" twice`},
		{"payload no UTF-8", a.payload("{\"\xff\":1}"), verify.ErrMalformed, "not UTF-8"},
		{"payload too large", a.payload(strings.Repeat(" ", 65<<10)), verify.ErrMalformed, "larger than"},
		{"payload changed in white space only", reframed, verify.ErrWrongKey, "1 signature was found"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v, err := verify.Policy{Keys: []verify.Key{a.Key}}.Verify(image, manifestType, []verify.Candidate{test.c})
			checkVerdict(t, v, err, test.err, test.says)
		})
	}
}

// An attestation that cosign made with the release key is no signature of an image.
func TestRealAttestation(t *testing.T) {
	p := verify.Policy{Keys: []verify.Key{key(t, "ecdsa.pub")}}
	v, err := p.Verify(read(t, "image.json"), manifestType,
		[]verify.Candidate{realBundle(t, "ecdsa.cosign3.sbom.bundle.json")})
	checkVerdict(t, v, err, verify.ErrUnsigned, `ecdsa.pub signed a statement of type "https://spdx.dev/Document"`)
}

// A malformed bundle is not accepted, whoever signed it.
func TestBundleForm(t *testing.T) {
	image := read(t, "image.json")
	a := newSigner(t, "a.pub")
	good := string(a.bundle(image).Bundle)
	change := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the bundle has no %s", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	tests := map[string]struct{ bundle, says string }{
		"another version": {change("v0.3", "v0.4"), "v0.4"},
		"two signatures":  {change(`"signatures":[`, `"signatures":[{"sig":"AAAA"},`), "2 signatures"},
		"no signature": {`{"mediaType":"` + verify.BundleMediaType +
			`","dsseEnvelope":{"payload":"","payloadType":""}}`, "0 signatures"},
		"no envelope":   {`{"mediaType":"` + verify.BundleMediaType + `"}`, "no DSSE envelope"},
		"a key twice":   {change(`"mediaType"`, `"mediaType":"x","mediaType"`), "not a bundle"},
		"unknown field": {change(`"mediaType"`, `"more":1,"mediaType"`), "not a bundle"},
		"too large":     {strings.Repeat(" ", verify.MaxBundle) + good, "larger than"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := verify.Candidate{Form: verify.FormBundle, Bundle: []byte(test.bundle), From: "test"}
			v, err := verify.Policy{Keys: []verify.Key{a.Key}}.Verify(image, manifestType, []verify.Candidate{c})
			checkVerdict(t, v, err, verify.ErrMalformed, test.says)
		})
	}
}
