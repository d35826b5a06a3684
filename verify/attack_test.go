package verify_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"

	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/verifytest"
)

const (
	alice  = "alice@example.org"
	bob    = "bob@example.org"
	issuer = "https://issuer.example.org"
)

// deployment is an authority, and the trust root that its hosts have pinned.
type deployment struct {
	t testing.TB
	*verifytest.Authority
	root *verify.TrustRoot
}

func newDeployment(t testing.TB) *deployment {
	t.Helper()
	a, err := verifytest.New()
	if err != nil {
		t.Fatal(err)
	}
	d := &deployment{t: t, Authority: a}
	d.root = d.pinned()
	return d
}

// pinned returns the trust root with parts missing or added.
func (d *deployment) pinned(parts ...verifytest.Part) *verify.TrustRoot {
	d.t.Helper()
	text, err := d.TrustRoot(parts...)
	if err != nil {
		d.t.Fatal(err)
	}
	r, err := verify.ParseTrustRoot("trusted_root.json", text)
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

func (d *deployment) bundle(s verifytest.Signing, content []byte) verify.Candidate {
	d.t.Helper()
	return d.must(d.Bundle(s, digest.FromBytes(content)))
}

func (d *deployment) simple(s verifytest.Signing, content []byte) verify.Candidate {
	d.t.Helper()
	return d.must(d.Simple(s, verifytest.SimplePayload(digest.FromBytes(content))))
}

// envelope signs, and lets a test change the bundle before it is published.
func (d *deployment) envelope(s verifytest.Signing, payloadType string, payload []byte,
	bend func(*bundlepb.Bundle)) verify.Candidate {
	d.t.Helper()
	b, err := d.Envelope(s, payloadType, payload)
	if err != nil {
		d.t.Fatal(err)
	}
	bend(b)
	return d.must(verifytest.Candidate(b))
}

func (d *deployment) must(c verify.Candidate, err error) verify.Candidate {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// trusts returns a rule for a subject of the usual issuer.
func (d *deployment) trusts(subject string) verify.Identity {
	return verify.Identity{Issuer: exact(issuer), Subject: exact(subject), Root: d.root}
}

func exact(s string) verify.Match   { return verify.Match{Exact: s} }
func pattern(s string) verify.Match { return verify.Match{Pattern: s} }

func identities(i ...verify.Identity) verify.Policy { return verify.Policy{Identities: i} }

// The attacks: each row has a signature that is nearly right, and the sentinel with which it is refused, or none if it
// is accepted.
func TestAttacks(t *testing.T) {
	image := read(t, "image.json")
	other := bytes.Replace(image, []byte(`"size":`), []byte(`"size": `), 1)
	d, elsewhere := newDeployment(t), newDeployment(t)
	key, lost, old := newSigner(t, "a.pub"), newSigner(t, "lost.pub"), newSigner(t, "old.pub")
	now := time.Now()

	signed := verifytest.Signing{Subject: alice, Issuer: issuer}
	with := func(change func(*verifytest.Signing)) verifytest.Signing {
		s := signed
		change(&s)
		return s
	}
	good := d.bundle(signed, image)
	unlogged := d.bundle(with(func(s *verifytest.Signing) { s.NoLog = true }), image)
	byBob := d.bundle(with(func(s *verifytest.Signing) { s.Subject = bob }), image)
	rule := func(change func(*verify.Identity)) verify.Policy {
		i := d.trusts(alice)
		change(&i)
		return identities(i)
	}
	required := identities(d.trusts(alice))
	optional := rule(func(i *verify.Identity) { i.Log = verify.LogOptional })
	off := rule(func(i *verify.Identity) { i.Log = verify.LogOff })
	subject := func(m verify.Match) verify.Policy { return rule(func(i *verify.Identity) { i.Subject = m }) }
	two := func(p verify.Policy) verify.Policy { p.Threshold = 2; return p }
	either := verify.Policy{Keys: []verify.Key{key.Key}, Identities: []verify.Identity{d.trusts(alice)}}
	statement := verifytest.Statement(digest.FromBytes(image))
	nothing := func(*bundlepb.Bundle) {}
	foreign := func(b *bundlepb.Bundle) { // the log entry of another artifact, by the same signer
		o, err := d.Envelope(signed, verify.BundlePayloadType, verifytest.Statement(digest.FromBytes(other)))
		if err != nil {
			t.Fatal(err)
		}
		b.VerificationMaterial.TlogEntries = o.VerificationMaterial.TlogEntries
	}
	swapped := func(b *bundlepb.Bundle) { // alice's certificate with the signature of a stranger
		o, err := d.Envelope(signed, verify.BundlePayloadType, statement)
		if err != nil {
			t.Fatal(err)
		}
		b.VerificationMaterial = o.VerificationMaterial
	}
	v2, err := d.EnvelopeV2(signed, statement)
	if err != nil {
		t.Fatal(err)
	}
	second := d.must(verifytest.Candidate(v2))

	revoked, ended := lost.Key, old.Key
	revoked.Revoked, revoked.Reason = true, "the laptop was stolen"
	ended.NotAfter = now.Add(-time.Hour)
	keys := func(k ...verify.Key) verify.Policy { return verify.Policy{Keys: k, Now: now} }
	logKey := func(rule verify.LogRule, k verify.Key) verify.Policy {
		k.Log, k.Root = rule, d.root
		return keys(k)
	}
	byKey := func(s *signer, change func(*verifytest.Signing)) verifytest.Signing {
		v := verifytest.Signing{Key: s.private}
		change(&v)
		return v
	}
	asIs := func(*verifytest.Signing) {}

	tests := []struct {
		name   string
		policy verify.Policy
		found  []verify.Candidate
		err    error
		says   string
	}{
		{"identity", required, []verify.Candidate{good}, nil, ""},
		{"identity, older form", required, []verify.Candidate{d.simple(signed, image)}, nil, ""},
		{"identity, second version of the log", required, []verify.Candidate{second}, nil, ""},
		{"rubbish beside it", required,
			[]verify.Candidate{{Form: verify.FormBundle, Bundle: []byte("{}")}, elsewhere.bundle(signed, image), byBob,
				good}, nil, ""},

		// Who.
		{"wrong issuer", rule(func(i *verify.Identity) { i.Issuer = exact("https://issuer.example.com") }),
			[]verify.Candidate{good}, verify.ErrWrongIdentity,
			`signed by "alice@example.org" of "https://issuer.example.org"`},
		{"wrong subject", required, []verify.Candidate{byBob}, verify.ErrWrongIdentity, `signed by "bob@example.org"`},
		{"wrong subject, older form", required,
			[]verify.Candidate{d.simple(with(func(s *verifytest.Signing) { s.Subject = bob }), image)},
			verify.ErrWrongIdentity, `"bob@example.org"`},
		{"subject in another case", subject(exact("Alice@example.org")), []verify.Candidate{good},
			verify.ErrWrongIdentity, ""},
		{"pattern", subject(pattern(`[a-z]+@example\.org`)), []verify.Candidate{good}, nil, ""},
		{"issuer's pattern",
			rule(func(i *verify.Identity) { i.Issuer = pattern(`https://issuer\.example\.(org|net)`) }),
			[]verify.Candidate{good}, nil, ""},
		{"issuer's pattern unanchored", rule(func(i *verify.Identity) { i.Issuer = pattern(`issuer\.example`) }),
			[]verify.Candidate{good}, verify.ErrWrongIdentity, ""},
		{"pattern that fits a part", subject(pattern(`alice@example`)), []verify.Candidate{good},
			verify.ErrWrongIdentity, ""},
		{"pattern that fits the end", subject(pattern(`ice@example\.org`)), []verify.Candidate{good},
			verify.ErrWrongIdentity, ""},
		{"pattern with one free alternative", subject(pattern(`zoe|alice`)), []verify.Candidate{good},
			verify.ErrWrongIdentity, ""},
		{"pattern that moves the anchors", subject(pattern(`(?m)alice@example\.org$`)),
			[]verify.Candidate{d.bundle(with(func(s *verifytest.Signing) { s.Subject = "alice@example.org\nmallory" }),
				image)}, verify.ErrWrongIdentity, ""},
		{"pattern that closes our group", subject(pattern(`x)|(?:alice.*`)), []verify.Candidate{good},
			verify.ErrIdentity, ""},
		{"other trust root", required, []verify.Candidate{elsewhere.bundle(signed, image)}, verify.ErrWrongKey,
			"none by a configured key or identity"},
		{"other trust root, older form", required, []verify.Candidate{elsewhere.simple(signed, image)},
			verify.ErrWrongKey, ""},
		{"somebody's certificate beside a signature", required,
			[]verify.Candidate{d.envelope(verifytest.Signing{Subject: bob, Issuer: issuer}, verify.BundlePayloadType,
				statement, swapped)}, verify.ErrWrongKey, ""},
		{"a key's bundle for an identity", required, []verify.Candidate{key.bundle(image)}, verify.ErrWrongKey, ""},
		{"an identity's bundle for a key", keys(key.Key), []verify.Candidate{good}, verify.ErrWrongKey, ""},

		// When.
		{"expired certificate", required,
			[]verify.Candidate{d.bundle(with(func(s *verifytest.Signing) { s.Issued = now.Add(-time.Hour) }), image)},
			verify.ErrExpired, "its certificate was valid from"},
		{"expired certificate, older form", required,
			[]verify.Candidate{d.simple(with(func(s *verifytest.Signing) { s.Issued = now.Add(-time.Hour) }), image)},
			verify.ErrExpired, "its certificate was valid from"},
		{"certificate of later", required,
			[]verify.Candidate{d.bundle(with(func(s *verifytest.Signing) { s.Issued = now.Add(time.Hour) }), image)},
			verify.ErrExpired, ""},
		{"expired certificate, by timestamp", off,
			[]verify.Candidate{d.bundle(with(func(s *verifytest.Signing) { s.Issued = now.Add(-11 * time.Minute) }),
				image)}, verify.ErrExpired, ""},
		{"logged in time, stamped too late", required, []verify.Candidate{d.bundle(with(func(s *verifytest.Signing) {
			s.Issued, s.Logged = now.Add(-11*time.Minute), now.Add(-5*time.Minute)
		}), image)}, verify.ErrExpired, ""},
		{"missing timestamp", off,
			[]verify.Candidate{d.bundle(with(func(s *verifytest.Signing) { s.NoTimestamp = true }), image)},
			verify.ErrTimestamp, "nothing proves when alice@example.org signed"},
		{"proof without promise or timestamp", required,
			[]verify.Candidate{d.bundle(with(func(s *verifytest.Signing) { s.NoPromise, s.NoTimestamp = true, true }),
				image)}, verify.ErrTimestamp, ""},
		{"proof without promise, with timestamp", required,
			[]verify.Candidate{d.bundle(with(func(s *verifytest.Signing) { s.NoPromise = true }), image)}, nil, ""},
		{"promise without timestamp", required,
			[]verify.Candidate{d.bundle(with(func(s *verifytest.Signing) { s.NoTimestamp = true }), image)}, nil, ""},
		{"timestamp of another signature", off,
			[]verify.Candidate{d.envelope(signed, verify.BundlePayloadType, statement, func(b *bundlepb.Bundle) {
				b.VerificationMaterial.TimestampVerificationData = v2.VerificationMaterial.TimestampVerificationData
			})}, verify.ErrTimestamp, ""},
		{"timestamp, no authority pinned",
			rule(func(i *verify.Identity) { i.Log, i.Root = verify.LogOptional, d.pinned(verifytest.NoTimestamps) }),
			[]verify.Candidate{unlogged}, verify.ErrTimestamp, ""},

		// Logs.
		{"log required, none", required, []verify.Candidate{unlogged}, verify.ErrLog,
			"has no entry of a transparency log"},
		{"log required, none, older form", required,
			[]verify.Candidate{d.simple(with(func(s *verifytest.Signing) { s.NoLog = true }), image)}, verify.ErrLog,
			""},
		{"log optional, none", optional, []verify.Candidate{unlogged}, nil, ""},
		{"log off, none", off, []verify.Candidate{unlogged}, nil, ""},
		{"log entry of another artifact", required,
			[]verify.Candidate{d.envelope(signed, verify.BundlePayloadType, statement, foreign)}, verify.ErrLog,
			"is not proved by its log entries"},
		{"log optional, entry of another artifact", optional,
			[]verify.Candidate{d.envelope(signed, verify.BundlePayloadType, statement, foreign)}, verify.ErrLog, ""},
		{"log off, entry of another artifact", off,
			[]verify.Candidate{d.envelope(signed, verify.BundlePayloadType, statement, foreign)}, nil, ""},
		{"log entry with a later time", required,
			[]verify.Candidate{d.envelope(with(func(s *verifytest.Signing) { s.NoTimestamp = true }),
				verify.BundlePayloadType, statement, func(b *bundlepb.Bundle) {
					b.VerificationMaterial.TlogEntries[0].IntegratedTime += 60
				})}, verify.ErrLog, ""},
		{"a great many log entries", required,
			[]verify.Candidate{d.envelope(signed, verify.BundlePayloadType, statement, func(b *bundlepb.Bundle) {
				for range 8 {
					b.VerificationMaterial.TlogEntries = append(b.VerificationMaterial.TlogEntries,
						b.VerificationMaterial.TlogEntries[0])
				}
			})}, verify.ErrMalformed, "9 log entries"},
		{"log that is not pinned",
			rule(func(i *verify.Identity) { i.Log, i.Root = verify.LogOptional, d.pinned(verifytest.NoLogs) }),
			[]verify.Candidate{good}, verify.ErrLog, ""},
		{"certificate in no certificate log",
			rule(func(i *verify.Identity) { i.Root = d.pinned(verifytest.CertificateLog) }), []verify.Candidate{good},
			verify.ErrLog, "certificate log"},

		// What.
		{"subject digest of another image", required, []verify.Candidate{d.bundle(signed, other)}, verify.ErrDigest,
			`the signature by alice@example.org is for "sha256:`},
		{"payload of another image", required, []verify.Candidate{d.simple(signed, other)}, verify.ErrDigest,
			`the signature by alice@example.org is for "sha256:`},
		{"bill of materials", required,
			[]verify.Candidate{d.envelope(signed, verify.BundlePayloadType,
				bytes.Replace(statement, []byte(verify.BundlePredicateType), []byte("https://spdx.dev/Document"), 1),
				nothing)}, verify.ErrUnsigned,
			`alice@example.org signed a statement of type "https://spdx.dev/Document"`},
		{"other payload type", required, []verify.Candidate{d.envelope(signed, "text/plain", statement, nothing)},
			verify.ErrUnsigned, `alice@example.org signed of type "text/plain"`},
		{"statement with subject twice", required,
			[]verify.Candidate{d.envelope(signed, verify.BundlePayloadType,
				bytes.Replace(statement, []byte(`"subject"`), []byte(`"Subject":[],"subject"`), 1), nothing)},
			verify.ErrMalformed, "which is spelled"},

		// How many.
		{"one of two", two(either), []verify.Candidate{good}, verify.ErrThreshold,
			"1 of the 2 signers needed vouched"},
		{"same identity twice", two(either),
			[]verify.Candidate{good, d.bundle(signed, image), d.simple(signed, image)}, verify.ErrThreshold,
			"(alice@example.org)"},
		{"same person by two rules",
			two(identities(d.trusts(alice),
				verify.Identity{Issuer: exact(issuer), Subject: pattern(".*"), Root: d.root, Log: verify.LogOff})),
			[]verify.Candidate{good, unlogged}, verify.ErrThreshold, "1 of the 2 signers"},
		{"two people by one rule",
			two(identities(verify.Identity{Issuer: exact(issuer), Subject: pattern(".*"), Root: d.root},
				d.trusts("zoe@example.org"))), []verify.Candidate{good, byBob},
			verify.ErrThreshold, "1 of the 2 signers"},
		{"two people, an exact rule after the pattern",
			two(identities(verify.Identity{Issuer: exact(issuer), Subject: pattern(".*"), Root: d.root},
				d.trusts(alice))), []verify.Candidate{good, byBob}, nil, ""},
		{"same key twice", two(either), []verify.Candidate{key.bundle(image), key.simple(image)}, verify.ErrThreshold,
			"(a.pub)"},
		{"key and identity", two(either), []verify.Candidate{good, key.simple(image)}, nil, ""},
		{"the missing one is named", two(keys(key.Key, revoked)),
			[]verify.Candidate{key.bundle(image), lost.bundle(image)}, verify.ErrThreshold,
			"lost.pub signed it and is revoked: the laptop was stolen"},

		// Keys that are no longer accepted.
		{"revoked key", keys(revoked), []verify.Candidate{lost.bundle(image)}, verify.ErrRevoked,
			"lost.pub signed it and is revoked: the laptop was stolen"},
		{"revoked key listed as good", keys(lost.Key, revoked), []verify.Candidate{lost.simple(image)},
			verify.ErrRevoked, "lost.pub"},
		{"revoked key beside a good one", keys(revoked, key.Key),
			[]verify.Candidate{lost.bundle(image), key.bundle(image)}, nil, ""},
		{"revoked key with a log entry from before", logKey(verify.LogRequired, revoked),
			[]verify.Candidate{d.bundle(byKey(lost, asIs), image)}, verify.ErrRevoked, ""},
		{"expired key", keys(ended), []verify.Candidate{old.bundle(image)}, verify.ErrExpired,
			"old.pub signed it and expired on"},
		{"expired key listed as good", keys(old.Key, ended), []verify.Candidate{old.bundle(image)}, verify.ErrExpired,
			"old.pub"},
		{"expired key, logged since", logKey(verify.LogRequired, ended),
			[]verify.Candidate{d.bundle(byKey(old, asIs), image)}, verify.ErrExpired, "old.pub"},
		{"a wrong key is not an expired one", keys(ended), []verify.Candidate{key.bundle(image)}, verify.ErrWrongKey,
			"none by a configured key (old.pub)"},
		{"key that ends, and no clock", verify.Policy{Keys: []verify.Key{ended}},
			[]verify.Candidate{old.bundle(image)}, verify.ErrKey, "does not know the time"},

		// Keys with a log.
		{"key, log required", logKey(verify.LogRequired, key.Key),
			[]verify.Candidate{d.bundle(byKey(key, asIs), image)}, nil, ""},
		{"key, log required, older form", logKey(verify.LogRequired, key.Key),
			[]verify.Candidate{d.simple(byKey(key, asIs), image)}, nil, ""},
		{"key, log required, none", logKey(verify.LogRequired, key.Key), []verify.Candidate{key.bundle(image)},
			verify.ErrLog, "the signature by a.pub has no entry"},
		{"key, log optional, none", logKey(verify.LogOptional, key.Key), []verify.Candidate{key.bundle(image)}, nil,
			""},
		{"key, log entry of another artifact", logKey(verify.LogOptional, key.Key),
			[]verify.Candidate{d.envelope(byKey(key, asIs), verify.BundlePayloadType, statement, foreign)},
			verify.ErrLog, "the signature by a.pub is not proved"},
		{"key, log of another deployment", logKey(verify.LogRequired, key.Key),
			[]verify.Candidate{elsewhere.bundle(byKey(key, asIs), image)}, verify.ErrLog, ""},
		{"key, another key's log entry", logKey(verify.LogRequired, key.Key),
			[]verify.Candidate{d.envelope(byKey(key, asIs), verify.BundlePayloadType, statement,
				func(b *bundlepb.Bundle) {
					o, err := d.Envelope(byKey(lost, asIs), verify.BundlePayloadType, statement)
					if err != nil {
						t.Fatal(err)
					}
					b.VerificationMaterial.TlogEntries = o.VerificationMaterial.TlogEntries
				})}, verify.ErrLog, ""},
		{"right key, other image's signature", keys(key.Key), []verify.Candidate{key.bundle(other)}, verify.ErrDigest,
			"the signature by a.pub is for"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v, err := test.policy.Verify(image, manifestType, test.found)
			if test.err != nil && !errors.Is(test.err, verify.ErrNotTrusted) { // a mistake in the policy
				if !errors.Is(err, test.err) || errors.Is(err, verify.ErrNotTrusted) || v != nil {
					t.Errorf("got %v, %v; want %v", v, err, test.err)
				}
				return
			}
			checkVerdict(t, v, err, test.err, test.says)
		})
	}
	t.Run("expired key, logged before", func(t *testing.T) {
		k := old.Key
		k.NotAfter = now.Add(-30 * time.Minute)
		before := byKey(old, func(s *verifytest.Signing) { s.Logged, s.NoTimestamp = now.Add(-40*time.Minute), true })
		v, err := logKey(verify.LogRequired, k).Verify(image, manifestType,
			[]verify.Candidate{d.bundle(before, image)})
		checkVerdict(t, v, err, nil, "")
		if got := v.Vouchers()[0].SignedAt; !got.Equal(before.Logged.Truncate(time.Second)) {
			t.Errorf("signed at %v, want %v", got, before.Logged)
		}
	})
}

// A voucher says who signed, when, and which log entry proves it.
func TestVoucherSaysWhatIsProven(t *testing.T) {
	image := read(t, "image.json")
	d := newDeployment(t)
	p := identities(d.trusts(alice))
	signed := verifytest.Signing{Subject: alice, Issuer: issuer, NoTimestamp: true}
	v, err := p.Verify(image, manifestType, []verify.Candidate{d.bundle(signed, image)})
	if err != nil {
		t.Fatal(err)
	}
	got := v.Vouchers()[0]
	if got.Signer != alice || got.Issuer != issuer || got.KeyID != "" || got.Form != verify.FormBundle {
		t.Errorf("voucher %+v", got)
	}
	if got.Log.Index != 4711 || len(got.Log.ID) != 64 || got.Log.String() != "entry 4711 of https://rekor.localhost" {
		t.Errorf("log entry %+v, %s", got.Log, got.Log)
	}
	if age := time.Since(got.SignedAt); age < 0 || age > time.Minute {
		t.Errorf("signed at %v", got.SignedAt)
	}
	p.Identities[0].Log = verify.LogOff
	signed.NoTimestamp = false
	if v, err = p.Verify(image, manifestType, []verify.Candidate{d.bundle(signed, image)}); err != nil {
		t.Fatal(err)
	}
	if got := v.Vouchers()[0]; got.Log != (verify.LogEntry{}) || got.SignedAt.IsZero() {
		t.Errorf("with the log off: %+v", got)
	}
}

// A wrong policy is distinguished from an image that is not trusted.
func TestPolicyCheck(t *testing.T) {
	d := newDeployment(t)
	a := newSigner(t, "a.pub")
	identity := func(change func(*verify.Identity)) verify.Policy {
		i := d.trusts(alice)
		change(&i)
		return identities(i)
	}
	key := func(log verify.LogRule, r *verify.TrustRoot) verify.Policy {
		k := a.Key
		k.Log, k.Root = log, r
		return verify.Policy{Keys: []verify.Key{k}}
	}
	for name, test := range map[string]struct {
		policy verify.Policy
		err    error
	}{
		"good identity": {identity(func(*verify.Identity) {}), nil},
		"no issuer": {identity(func(i *verify.Identity) { i.Issuer = verify.Match{} }),
			verify.ErrIdentity},
		"no subject": {identity(func(i *verify.Identity) { i.Subject = verify.Match{} }),
			verify.ErrIdentity},
		"subject twice": {identity(func(i *verify.Identity) { i.Subject.Pattern = "x" }),
			verify.ErrIdentity},
		"broken pattern": {identity(func(i *verify.Identity) { i.Subject = pattern("(") }),
			verify.ErrIdentity},
		"no trust root": {identity(func(i *verify.Identity) { i.Root = nil }), verify.ErrIdentity},
		"unknown log rule": {
			identity(func(i *verify.Identity) { i.Log = "maybe" }), verify.ErrIdentity},
		"root without certificates": {
			identity(func(i *verify.Identity) { i.Root = d.pinned(verifytest.NoCertificates) }), verify.ErrIdentity},
		"root without logs": {identity(func(i *verify.Identity) { i.Root = d.pinned(verifytest.NoLogs) }),
			verify.ErrIdentity},
		"no log and no timestamps": {identity(func(i *verify.Identity) {
			i.Log, i.Root = verify.LogOff,
				d.pinned(verifytest.NoTimestamps)
		}), verify.ErrIdentity},
		"key":                          {key("", nil), nil},
		"key with a log":               {key(verify.LogOptional, d.root), nil},
		"key with a log and no root":   {key(verify.LogOptional, nil), verify.ErrKey},
		"key with an unknown log rule": {key("always", d.root), verify.ErrKey},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.policy.Check(); !errors.Is(err, test.err) || errors.Is(err, verify.ErrNotTrusted) {
				t.Errorf("got %v, want %v", err, test.err)
			}
		})
	}
	for name, text := range map[string]string{
		"empty": "", "no JSON": "{", "another type": `{"mediaType":"x"}`, "unknown field": `{"more":1}`,
		"null log": `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[{}]}`,
		"null root": `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1",` +
			`"certificateAuthorities":[{}]}`,
		"too large": fmt.Sprintf("%2000000s", "{}"),
	} {
		if r, err := verify.ParseTrustRoot(name, []byte(text)); !errors.Is(err, verify.ErrTrustRoot) || r != nil {
			t.Errorf("trust root %s: got %v, %v", name, r, err)
		}
	}
}
