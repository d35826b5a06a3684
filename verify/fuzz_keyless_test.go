package verify_test

import (
	"bytes"
	"errors"
	"regexp"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/verify"
)

// A bundle with certificate, log entry and timestamp only vouches for the image that it was made for, however it is
// changed, and causes no panic.
func FuzzKeylessBundle(f *testing.F) {
	image := read(f, "image.json")
	other := bytes.Replace(image, []byte(`"size":`), []byte(`"size": `), 1)
	data, root, k := readKeyless(f)
	var seeds [][]byte
	for _, c := range data.Candidates {
		if c.Form == verify.FormBundle {
			seeds = append(seeds, c.Bundle)
		}
	}
	addSeeds(f, seeds)
	k.Log, k.Root = verify.LogRequired, root
	required := verify.Identity{Issuer: exact(issuer), Subject: exact(alice), Root: root}
	optional := required
	optional.Log = verify.LogOptional
	p := verify.Policy{Keys: []verify.Key{k}, Identities: []verify.Identity{required, optional}}
	f.Fuzz(func(t *testing.T, bundle []byte) {
		c := []verify.Candidate{{Form: verify.FormBundle, Bundle: bundle}}
		if v, err := p.Verify(other, manifestType, c); err == nil {
			t.Errorf("vouches for content nobody signed: %v", v.Vouchers())
		} else if !errors.Is(err, verify.ErrNotTrusted) {
			t.Errorf("%v is no refusal", err)
		}
		if v, err := p.Verify(image, manifestType, c); err == nil &&
			(len(v.Vouchers()) != 1 || v.Vouchers()[0].SignedAt.IsZero() && v.Vouchers()[0].Log.ID == "") {
			t.Errorf("passes with vouchers %+v", v.Vouchers())
		}
	})
}

// The annotations of cosign 2 have a parser of their own.
func FuzzSimpleProofs(f *testing.F) {
	image := read(f, "image.json")
	data, root, _ := readKeyless(f)
	good := data.Candidates["simple"]
	for _, c := range []verify.Candidate{good, data.Candidates["key, simple"]} {
		if len(c.LogEntry) == 0 || len(c.Timestamp) == 0 {
			f.Fatal("a seed is empty")
		}
		f.Add(c.Certificate, c.LogEntry, c.Timestamp)
	}
	p := identities(verify.Identity{Issuer: exact(issuer), Subject: exact(alice), Root: root})
	f.Fuzz(func(t *testing.T, certificate, entry, stamp []byte) {
		c := good
		c.Certificate, c.LogEntry, c.Timestamp = certificate, entry, stamp
		v, err := p.Verify(image, manifestType, []verify.Candidate{c})
		if err != nil && !errors.Is(err, verify.ErrNotTrusted) {
			t.Errorf("%v is no refusal", err)
		}
		if err == nil && (v.Vouchers()[0].Signer != alice || v.Vouchers()[0].Log.Index != 4711) {
			t.Errorf("vouchers %+v", v.Vouchers())
		}
		c.Payload = append(bytes.Clone(c.Payload), ' ')
		if _, err := p.Verify(image, manifestType, []verify.Candidate{c}); err == nil {
			t.Error("another payload passes")
		}
	})
}

func FuzzTrustRoot(f *testing.F) {
	data, _, _ := readKeyless(f)
	addSeeds(f, [][]byte{data.TrustRoot,
		[]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)})
	image := read(f, "image.json")
	c := []verify.Candidate{data.Candidates["bundle"]}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := verify.ParseTrustRoot("fuzz", text)
		if err != nil {
			if !errors.Is(err, verify.ErrTrustRoot) || r != nil {
				t.Errorf("got %v, %v", r, err)
			}
			return
		}
		i := verify.Identity{Issuer: exact(issuer), Subject: exact(alice), Root: r}
		if _, err := identities(i).Verify(image, manifestType, c); err != nil &&
			!errors.Is(err, verify.ErrNotTrusted) && !errors.Is(err, verify.ErrIdentity) {
			t.Errorf("%v is no refusal", err)
		}
	})
}

// Stored evidence is as untrusted as a registry: only what was signed is accepted.
func FuzzEvidence(f *testing.F) {
	known, root, key := readKeyless(f)
	image := read(f, "image.json")
	p := verify.Policy{Keys: []verify.Key{key},
		Identities: []verify.Identity{{Issuer: exact(issuer), Subject: exact(alice), Root: root}}}
	var seeds [][]byte
	for _, c := range known.Candidates {
		seed, err := verify.Evidence{Schema: verify.EvidenceSchema,
			Chain:      []verify.Document{{MediaType: manifestType, Content: image}},
			Signatures: []verify.Candidate{c}}.Bytes()
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, seed)
	}
	addSeeds(f, seeds)
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := verify.ParseEvidence(data)
		if err == nil {
			v, again := p.Again(e)
			if err = again; err == nil && v.Digest() != digest.FromBytes(image) {
				t.Errorf("vouches for %s", v.Digest())
			}
		}
		if err != nil && !errors.Is(err, verify.ErrNotTrusted) {
			t.Errorf("%v is no refusal", err)
		}
	})
}

// A pattern that is accepted matches whole subjects only.
func FuzzPattern(f *testing.F) {
	seeds := []string{`alice@example\.org`, `alice@example`, `(?m)alice$`, `a)|(?:b`, `.*`, `(?i)ALICE@EXAMPLE\.ORG`,
		`\Qalice@example.org\E`, `\Qalice`, `alice@example\.org|bob`, `(?s).`}
	for _, s := range seeds {
		f.Add(s)
	}
	image := read(f, "image.json")
	data, root, _ := readKeyless(f)
	c := []verify.Candidate{data.Candidates["bundle"]}
	f.Fuzz(func(t *testing.T, text string) {
		_, err := identities(verify.Identity{Issuer: exact(issuer), Subject: pattern(text), Root: root}).Verify(image,
			manifestType, c)
		alone, broken := regexp.Compile(text)
		switch {
		case broken != nil || text == "":
			if !errors.Is(err, verify.ErrIdentity) {
				t.Errorf("%q is taken: %v", text, err)
			}
		case err == nil:
			alone.Longest()
			if alone.FindString(alice) != alice {
				t.Errorf("%q matches a part: %q", text, alone.FindString(alice))
			}
		case !errors.Is(err, verify.ErrWrongIdentity) && !errors.Is(err, verify.ErrIdentity):
			t.Errorf("%q: %v", text, err)
		}
	})
}
