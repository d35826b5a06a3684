package verify

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Policy says who must have signed an image.
type Policy struct {
	Keys       []Key
	Identities []Identity
	// Revoked are identities that no longer count, whichever rule of Identities they match. They need no trust root.
	Revoked []Identity
	// Restrictions limit keys that are listed in Keys, each the key with its ID. They make no key count.
	Restrictions []Key
	// Threshold is the number of distinct signers that must vouch, keys and identities together. Less than 1 means 1.
	Threshold int
	// Now is the time. It is only needed for keys that expire.
	Now time.Time
}

// Verify returns the content as verified if enough distinct signers vouch for its digest, and if it is what its media
// type says.
//
// The error is that of [Policy.Check] if the policy is wrong, else an ErrNotTrusted.
func (p Policy) Verify(content []byte, mediaType string, c []Candidate) (*Verified, error) {
	signers, err := p.signers()
	if err != nil {
		return nil, err
	}
	if len(signers) == 0 {
		return nil, &refused{"neither a key nor an identity is configured", ErrWrongKey}
	}
	if len(signers) < p.threshold() {
		return nil, &refused{fmt.Sprintf("%d signers must vouch, and only %d are configured", p.threshold(),
			len(signers)), ErrThreshold}
	}
	if len(content) > MaxManifest {
		return nil, &refused{fmt.Sprintf("the manifest is larger than %d bytes", MaxManifest), ErrMalformed}
	}
	d := digest.SHA256.FromBytes(content)
	if len(c) == 0 {
		return nil, &refused{fmt.Sprintf("no signature was found for %s", d), ErrUnsigned}
	}
	if len(c) > MaxCandidates {
		return nil, &refused{fmt.Sprintf("%d signatures were found for %s, more than %d", len(c), d, MaxCandidates),
			ErrMalformed}
	}
	votes, err := p.count(signers, c, d)
	if err != nil {
		return nil, err
	}
	if err := checkContent(content, mediaType); err != nil {
		return nil, fmt.Errorf("cannot accept %s: %w", d, err)
	}
	v := &Verified{content: bytes.Clone(content), digest: d, mediaType: mediaType}
	for _, vote := range votes {
		v.vouchers = append(v.vouchers, vote.voucher)
		v.accepted = append(v.accepted, vote.candidate)
	}
	return v, nil
}

// Check checks the policy itself. The error is an ErrKey or an ErrIdentity.
func (p Policy) Check() error {
	_, err := p.signers()
	return err
}

// signer is one rule of a policy: a key or an identity.
type signer interface {
	// vouch returns a voucher if the signature is by this signer and has the proofs that the rule requires. What is
	// signed is not parsed yet. Without a voucher and without an error, it is by somebody else.
	vouch(s *sealed, now time.Time) (*Voucher, error)
	// counts reports whether the voucher is one of this signer, and still valid if it was given at that time.
	counts(v Voucher, at time.Time) bool
	name() string
}

// signers returns the rules of the policy, each key once. Exact identities come before patterns, so that somebody who
// matches both leaves the pattern for another signer.
func (p Policy) signers() ([]signer, error) {
	var all []signer
	keys := make(map[string]*keySigner)
	for _, key := range p.Keys {
		k, err := key.signer()
		if err != nil {
			return nil, err
		}
		if known := keys[k.ID]; known != nil {
			known.Restrict(k.Key)
			continue
		}
		keys[k.ID] = k
		all = append(all, k)
	}
	if err := restrict(keys, p.Restrictions); err != nil {
		return nil, err
	}
	for _, k := range keys {
		if !k.NotAfter.IsZero() && p.Now.IsZero() {
			return nil, fmt.Errorf("%w %s: it expires, and the policy does not know the time", ErrKey, k.Name)
		}
	}
	identities := slices.SortedStableFunc(slices.Values(p.Identities), func(a, b Identity) int {
		return cmp.Compare(a.patterns(), b.patterns())
	})
	revoked, err := revokedMatches(p.Revoked)
	if err != nil {
		return nil, err
	}
	for _, identity := range identities {
		i, err := identity.signer()
		if err != nil {
			return nil, err
		}
		i.revoked = revoked
		all = append(all, i)
	}
	return all, nil
}

// restrict applies restrictions to the keys with their IDs.
func restrict(keys map[string]*keySigner, restrictions []Key) error {
	for _, r := range restrictions {
		k := keys[r.ID]
		if k == nil {
			continue
		}
		k.Restrict(r)
		if err := k.Root.check(k.Log, false); err != nil {
			return fmt.Errorf("%w %s: %w", ErrKey, k.Name, err)
		}
	}
	return nil
}

func (p Policy) threshold() int { return max(p.Threshold, 1) }

// vote is an accepted signature.
type vote struct {
	signer    int // index of the rule
	voucher   Voucher
	candidate Candidate
}

// count returns the votes for d, or why they are not enough. Neither a rule nor a person counts twice.
func (p Policy) count(signers []signer, candidates []Candidate, d digest.Digest) ([]vote, error) {
	var votes []vote
	why := reasons{of: d, found: len(candidates)}
	for _, c := range candidates {
		v, errs := c.vote(signers, d, p.Now)
		if v == nil {
			why.add(errs)
			continue
		}
		if !slices.ContainsFunc(votes,
			func(o vote) bool { return o.signer == v.signer || o.voucher.who() == v.voucher.who() }) {
			votes = append(votes, *v)
		}
	}
	if len(votes) == 0 {
		return nil, why.refusal(signers)
	}
	slices.SortFunc(votes, func(a, b vote) int { return cmp.Compare(a.signer, b.signer) })
	if len(votes) < p.threshold() {
		names := make([]string, len(votes))
		for i, v := range votes {
			names[i] = v.voucher.Signer
		}
		return nil, &refused{fmt.Sprintf("%d of the %d signers needed vouched for %s (%s)%s",
			len(votes), p.threshold(), d, strings.Join(names, ", "), why.also()), ErrThreshold}
	}
	return votes, nil
}

// vote returns the vote of the candidate, for the first signer whose rule it satisfies. Without a vote and without
// errors, it is by an unknown signer.
func (c Candidate) vote(signers []signer, d digest.Digest, now time.Time) (*vote, []error) {
	s, err := c.open()
	if err != nil {
		return nil, []error{c.unusable(err)}
	}
	var errs []error
	for i, signer := range signers {
		v, err := signer.vouch(s, now)
		if err == nil && v != nil {
			if err = s.claim(d); err == nil {
				return &vote{i, *v, c}, nil
			}
			// What is signed would be the same for any other signer.
			return nil, []error{c.misuse(v, err, d)}
		}
		if err != nil {
			errs = append(errs, c.unusable(err))
		}
	}
	return nil, errs
}
