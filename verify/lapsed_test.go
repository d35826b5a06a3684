package verify_test

import (
	"slices"
	"testing"
	"time"

	"github.com/updatectl/updatectl/verify"
)

// TestLapsed: who vouched once still counts, unless the policy withdrew that, and then only if the others are too few.
func TestLapsed(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	d, a, b := newDeployment(t), newSigner(t, "a.pub"), newSigner(t, "b.pub")
	with := func(k verify.Key, change func(*verify.Key)) verify.Key {
		change(&k)
		return k
	}
	text, err := d.TrustRoot()
	if err != nil {
		t.Fatal(err)
	}
	root, err := verify.ParseTrustRoot("root.json", text)
	if err != nil {
		t.Fatal(err)
	}
	byA, byB := verify.Voucher{Signer: "a.pub", KeyID: a.Key.ID}, verify.Voucher{Signer: "b.pub", KeyID: b.Key.ID}
	byAlice := verify.Voucher{Signer: alice, Issuer: issuer, Log: verify.LogEntry{ID: "1"}}
	logged := byA
	logged.Log, logged.SignedAt = verify.LogEntry{ID: "1"}, now.AddDate(-1, 0, 0)
	revoked := with(a.Key, func(k *verify.Key) { k.Revoked = true })
	ended := with(a.Key, func(k *verify.Key) { k.NotAfter = now.AddDate(0, -1, 0) })
	asksForLog := with(a.Key, func(k *verify.Key) { k.Log, k.Root = verify.LogRequired, root })
	people := func(subject string) []verify.Identity {
		return []verify.Identity{{Issuer: verify.Match{Exact: issuer}, Subject: verify.Match{Pattern: subject}, Root: root}}
	}
	keys := func(k ...verify.Key) verify.Policy { return verify.Policy{Keys: k} }
	two := func(k ...verify.Key) verify.Policy { return verify.Policy{Keys: k, Threshold: 2} }
	ends := with(a.Key, func(k *verify.Key) { k.NotAfter = now.Add(time.Hour) })
	limited := verify.Policy{Keys: []verify.Key{a.Key}, Restrictions: []verify.Key{revoked}}
	for name, c := range map[string]struct {
		policy   verify.Policy
		vouchers []verify.Voucher
		want     []string
	}{
		"counts":                {keys(a.Key), []verify.Voucher{byA}, nil},
		"under another name":    {keys(a.Key), []verify.Voucher{{Signer: "old.pub", KeyID: a.Key.ID}}, nil},
		"nobody is recorded":    {keys(a.Key), nil, nil},
		"revoked":               {keys(revoked, b.Key), []verify.Voucher{byA}, []string{"a.pub"}},
		"not listed":            {keys(b.Key), []verify.Voucher{byA}, []string{"a.pub"}},
		"another counts":        {keys(revoked, b.Key), []verify.Voucher{byA, byB}, nil},
		"another is not enough": {two(revoked, b.Key), []verify.Voucher{byA, byB}, []string{"a.pub"}},
		"more are required":     {two(a.Key, b.Key), []verify.Voucher{byA}, nil},
		"ended before":          {keys(ended), []verify.Voucher{byA}, []string{"a.pub"}},
		"ended since":           {keys(ends), []verify.Voucher{byA}, nil},
		"signed before the end": {keys(ended), []verify.Voucher{logged}, nil},
		"lacks the log":         {keys(asksForLog), []verify.Voucher{byA}, []string{"a.pub"}},
		"has the log":           {keys(asksForLog), []verify.Voucher{logged}, nil},
		"restricted elsewhere":  {limited, []verify.Voucher{byA}, []string{"a.pub"}},
		"identity":              {verify.Policy{Identities: people(alice)}, []verify.Voucher{byAlice}, nil},
		"another identity":      {verify.Policy{Identities: people("bob@.*")}, []verify.Voucher{byAlice}, []string{alice}},
		"revoked identity": {
			verify.Policy{Identities: people(alice), Revoked: []verify.Identity{{Issuer: verify.Match{Pattern: ".*"},
				Subject: verify.Match{Exact: alice}}}}, []verify.Voucher{byAlice}, []string{alice},
		},
		"a key is no identity": {verify.Policy{Identities: people(".*")}, []verify.Voucher{byA}, []string{"a.pub"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.policy.Now = now
			got, err := c.policy.Lapsed(c.vouchers, now)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%q, %v, want %q", got, err, c.want)
			}
		})
	}
}
