package verify_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/verifytest"
)

// keyless is testdata/keyless.json: signatures of image.json by a deployment that no longer exists, and its trust
// root. They never expire, and are the same in every process of a fuzz test.
type keyless struct {
	TrustRoot  json.RawMessage             `json:"trust_root"`
	Key        string                      `json:"key"` // public, in PEM
	Candidates map[string]verify.Candidate `json:"candidates"`
}

var update = flag.Bool("update", false, "make testdata/keyless.json anew")

func makeKeyless(t *testing.T) {
	d, image, a := newDeployment(t), read(t, "image.json"), newSigner(t, "a.pub")
	signed := verifytest.Signing{Subject: alice, Issuer: issuer}
	with := func(change func(*verifytest.Signing)) verifytest.Signing {
		s := signed
		change(&s)
		return s
	}
	v2, err := d.EnvelopeV2(signed, verifytest.Statement(digest.FromBytes(image)))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(a.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	k := keyless{Key: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		Candidates: map[string]verify.Candidate{
			"bundle":         d.bundle(signed, image),
			"no promise":     d.bundle(with(func(s *verifytest.Signing) { s.NoPromise = true }), image),
			"no log":         d.bundle(with(func(s *verifytest.Signing) { s.NoLog = true }), image),
			"second version": d.must(verifytest.Candidate(v2)),
			"simple":         d.simple(signed, image),
			"key":            d.bundle(verifytest.Signing{Key: a.private}, image),
			"key, simple":    d.simple(verifytest.Signing{Key: a.private}, image),
			"bob":            d.bundle(with(func(s *verifytest.Signing) { s.Subject = bob }), image),
			"expired": d.bundle(with(func(s *verifytest.Signing) { s.Issued = time.Now().Add(-time.Hour) }),
				image),
		}}
	if k.TrustRoot, err = d.TrustRoot(); err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(k, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("testdata/keyless.json", append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readKeyless(t testing.TB) (k keyless, root *verify.TrustRoot, key verify.Key) {
	t.Helper()
	if err := json.Unmarshal(read(t, "keyless.json"), &k); err != nil {
		t.Fatal(err)
	}
	root, err := verify.ParseTrustRoot("keyless.json", k.TrustRoot)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = verify.ParseKey("a.pub", []byte(k.Key)); err != nil {
		t.Fatal(err)
	}
	return k, root, key
}

// A signature is still accepted after years: it contains the proof of its time, and no certificate of the deployment
// needs to be valid now.
func TestKeylessLasts(t *testing.T) {
	if *update {
		makeKeyless(t)
	}
	k, root, key := readKeyless(t)
	key.Log, key.Root = verify.LogRequired, root
	identity := verify.Identity{Issuer: exact(issuer), Subject: exact(alice), Root: root}
	optional := identity
	optional.Log = verify.LogOptional
	for name, test := range map[string]struct {
		policy verify.Policy
		err    error
	}{
		"bundle":         {identities(identity), nil},
		"no promise":     {identities(identity), nil},
		"second version": {identities(identity), nil},
		"simple":         {identities(identity), nil},
		"no log":         {identities(optional), nil},
		"key":            {verify.Policy{Keys: []verify.Key{key}}, nil},
		"key, simple":    {verify.Policy{Keys: []verify.Key{key}}, nil},
		"bob":            {identities(identity), verify.ErrWrongIdentity},
		"expired":        {identities(identity), verify.ErrExpired},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := test.policy.Verify(read(t, "image.json"), manifestType, []verify.Candidate{k.Candidates[name]})
			checkVerdict(t, v, err, test.err, "")
		})
	}
}
