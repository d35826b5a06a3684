// Package trust answers which trust was withdrawn on this host, whatever the /etc of the running root says. It promises
// that a restriction of a key, and the revocation of an identity, outlive a rollback to a root whose /etc does not have
// them. It adds no trust: a key counts only if the configuration lists it.
package trust

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/verify"
)

// Restriction is what makes a key or an identity count less, and who says so.
type Restriction struct {
	// KeyID is the ID of the key as in [verify.Key], "" for an identity; Name is for people.
	KeyID string `json:"key_id,omitempty"`
	Name  string `json:"name"`
	// Identity is the rule that matches the identities, nil for a key. It is always revoked.
	Identity *Identity      `json:"identity,omitempty"`
	NotAfter time.Time      `json:"not_after,omitzero"`
	Revoked  bool           `json:"revoked,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Log      verify.LogRule `json:"log,omitempty"`
	// TrustRoot is the trusted_root.json that names the logs: the one of another root may lack them.
	TrustRoot string `json:"trust_root,omitempty"`
	// Root is the root whose /etc restricts the key.
	Root string `json:"root"`
}

// Identity matches identities as a [verify.Identity] does.
type Identity struct {
	Issuer         string `json:"issuer,omitempty"`
	IssuerPattern  string `json:"issuer_pattern,omitempty"`
	Subject        string `json:"subject,omitempty"`
	SubjectPattern string `json:"subject_pattern,omitempty"`
}

// Ledger has the restrictions that this host has seen.
type Ledger struct {
	// Root is the root whose /etc was read last; Configured are the restrictions in there.
	Root       string        `json:"root"`
	Configured []Restriction `json:"configured"`
	// Remembered are restrictions in the /etc of roots that ran before, as far as Configured does not have them.
	Remembered []Restriction `json:"remembered"`
}

// Of returns the restrictions of a policy that was read from the /etc of a root, one for each key and identity.
func Of(p verify.Policy, root string) []Restriction {
	all := []Restriction{}
	for _, k := range slices.Concat(p.Keys, p.Restrictions) {
		if r := ofKey(k, root); r.restricts() {
			all = with(all, r)
		}
	}
	for _, i := range p.Revoked {
		who := Identity{i.Issuer.Exact, i.Issuer.Pattern, i.Subject.Exact, i.Subject.Pattern}
		all = with(all, Restriction{Name: i.String(), Identity: &who, Revoked: true, Reason: i.Reason, Root: root})
	}
	return all
}

// isAboutSame reports whether two restrictions are about the same key or identity.
func (r Restriction) isAboutSame(o Restriction) bool {
	if r.Identity == nil || o.Identity == nil {
		return r.Identity == o.Identity && r.KeyID == o.KeyID
	}
	return *r.Identity == *o.Identity
}

// ofKey returns the restrictions of one listing of a key.
func ofKey(k verify.Key, root string) Restriction {
	r := Restriction{KeyID: k.ID, Name: k.Name, NotAfter: k.NotAfter.UTC(), Revoked: k.Revoked, Reason: k.Reason,
		Root: root}
	if k.Log.Rank() > 0 && k.Root != nil {
		r.Log, r.TrustRoot = k.Log, string(k.Root.Bytes())
	}
	return r
}

// restricts reports whether anything is restricted.
func (r Restriction) restricts() bool { return r.Revoked || !r.NotAfter.IsZero() || r.Log.Rank() > 0 }

// with returns a list with one more restriction. Of two for the same key, the stricter one counts.
func with(all []Restriction, r Restriction) []Restriction {
	i := slices.IndexFunc(all, r.isAboutSame)
	if i < 0 {
		return append(all, r)
	}
	o := &all[i]
	if r.Revoked && !o.Revoked {
		o.Revoked, o.Reason = true, r.Reason
	}
	if !r.NotAfter.IsZero() && (o.NotAfter.IsZero() || r.NotAfter.Before(o.NotAfter)) {
		o.NotAfter = r.NotAfter
	}
	if r.Log.Rank() > o.Log.Rank() {
		o.Log, o.TrustRoot = r.Log, r.TrustRoot
	}
	return all
}

// beyond returns the part of a restriction that is stricter than another one of the same key.
func (r Restriction) beyond(o Restriction) Restriction {
	if o.Revoked {
		r.Revoked, r.Reason = false, ""
	}
	if !o.NotAfter.IsZero() && !r.NotAfter.Before(o.NotAfter) {
		r.NotAfter = time.Time{}
	}
	if o.Log.Rank() >= r.Log.Rank() {
		r.Log, r.TrustRoot = "", ""
	}
	return r
}

// Update returns the ledger after the /etc of a root was read. Whole is whether all of its configuration is known:
// only then is a restriction that is missing one that the operator took out, where it was. In another root, a missing
// restriction is one that the root's /etc never had.
func (l Ledger) Update(configured []Restriction, root string, whole bool) Ledger {
	next := Ledger{Root: root, Configured: slices.Clone(configured), Remembered: []Restriction{}}
	before := slices.Clone(l.Remembered)
	switch {
	case l.Root != root:
		for _, r := range l.Configured {
			before = with(before, r)
		}
	case !whole:
		for _, r := range l.Configured {
			next.Configured = with(next.Configured, r)
		}
	}
	for _, r := range before {
		for _, o := range next.Configured {
			if r.isAboutSame(o) {
				r = r.beyond(o)
			}
		}
		if r.restricts() {
			next.Remembered = append(next.Remembered, r)
		}
	}
	return next
}

// IsEmpty reports whether the ledger has no restriction.
func (l Ledger) IsEmpty() bool { return len(l.Configured)+len(l.Remembered) == 0 }

// Restrict adds the restrictions to a policy. The error is a [verify.ErrTrustRoot].
func (l Ledger) Restrict(p *verify.Policy) error {
	for _, r := range slices.Concat(l.Configured, l.Remembered) {
		if who := r.Identity; who != nil {
			p.Revoked = append(p.Revoked, verify.Identity{
				Issuer:  verify.Match{Exact: who.Issuer, Pattern: who.IssuerPattern},
				Subject: verify.Match{Exact: who.Subject, Pattern: who.SubjectPattern}, Reason: r.Reason,
			})
			continue
		}
		k := verify.Key{ID: r.KeyID, Name: r.Name, NotAfter: r.NotAfter, Revoked: r.Revoked, Reason: r.Reason, Log: r.Log}
		if r.Log.Rank() > 0 {
			var err error
			if k.Root, err = verify.ParseTrustRoot("of "+r.Root, []byte(r.TrustRoot)); err != nil {
				return fmt.Errorf("cannot use a restriction of the key %s: %w", r.Name, err)
			}
		}
		p.Restrictions = append(p.Restrictions, k)
	}
	return nil
}

// Kept returns, in words, the remembered restrictions of the keys that a policy lists, and of identities if it has any
// rule for them: without the ledger, these would count for more.
func (l Ledger) Kept(p verify.Policy) []string {
	kept := []string{}
	for _, r := range l.Remembered {
		if r.Identity != nil && len(p.Identities) > 0 ||
			slices.ContainsFunc(p.Keys, func(k verify.Key) bool { return k.ID == r.KeyID }) {
			kept = append(kept, r.String())
		}
	}
	return kept
}

// String says which restriction outlives its root.
func (r Restriction) String() string {
	var what []string
	if r.Revoked {
		what = append(what, "is revoked")
		if r.Reason != "" {
			what[0] += " (" + r.Reason + ")"
		}
	}
	if !r.NotAfter.IsZero() {
		what = append(what, "ends at "+r.NotAfter.Format(time.RFC3339))
	}
	if r.Log.Rank() > 0 {
		what = append(what, fmt.Sprintf("has log = %q", r.Log))
	}
	who := "key"
	if r.Identity != nil {
		who = "identity"
	}
	return fmt.Sprintf("the %s %s %s: the configuration of %s says so, and a rollback does not change that",
		who, r.Name, strings.Join(what, " and "), r.Root)
}
