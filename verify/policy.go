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

// Policy says who must have signed.
type Policy struct {
	Keys       []Key
	Identities []Identity
	// Threshold is how many distinct signers must vouch, keys and identities together; below 1 means 1.
	Threshold int
	// Now is the time, for keys that end. Only they need it.
	Now time.Time
}

// Verify returns the content as verified when enough distinct signers vouch for its digest and it is what its media
// type says.
//
// The error is that of [Policy.Check] for a policy that cannot work, else one below ErrNotTrusted.
func (p Policy) Verify(content []byte, mediaType string, c []Candidate) (*Verified, error) {
	signers, err := p.signers()
	if err != nil {
		return nil, err
	}
	if len(signers) == 0 {
		return nil, &refused{"no key is configured that could vouch for an image, and no identity", ErrWrongKey}
	}
	if len(signers) < p.threshold() {
		return nil, &refused{fmt.Sprintf("%d signers must vouch and only %d are configured", p.threshold(), len(signers)), ErrThreshold}
	}
	if len(content) > MaxManifest {
		return nil, &refused{fmt.Sprintf("the manifest is larger than %d bytes", MaxManifest), ErrMalformed}
	}
	d := digest.SHA256.FromBytes(content)
	if len(c) == 0 {
		return nil, &refused{fmt.Sprintf("no signature was found for %s", d), ErrUnsigned}
	}
	if len(c) > MaxCandidates {
		return nil, &refused{fmt.Sprintf("%d signatures were found for %s, more than the %d that are looked at", len(c), d, MaxCandidates), ErrMalformed}
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

// Check says whether the policy can work, without anything to verify. The error is ErrKey or ErrIdentity.
func (p Policy) Check() error {
	_, err := p.signers()
	return err
}

// signer is one rule of a policy: a key or an identity.
type signer interface {
	// vouch returns the voucher if the signature is by the signer and carries the proofs that the rule asks for; what
	// is signed is still unread. No voucher and no error mean that it is by somebody else.
	vouch(s *sealed, now time.Time) (*Voucher, error)
	name() string
}

// signers returns the rules of the policy, each key once whatever its names. Exact identities come before patterns, so
// that somebody whom both fit does not use up the wider rule.
func (p Policy) signers() ([]signer, error) {
	var all []signer
	keys := make(map[string]*keySigner)
	for _, key := range p.Keys {
		k, err := key.signer()
		if err != nil {
			return nil, err
		}
		if !k.NotAfter.IsZero() && p.Now.IsZero() {
			return nil, fmt.Errorf("%w %s: it ends, and the policy does not know the time", ErrKey, k.Name)
		}
		if known := keys[k.ID]; known != nil {
			known.merge(k.Key)
			continue
		}
		keys[k.ID] = k
		all = append(all, k)
	}
	identities := slices.SortedStableFunc(slices.Values(p.Identities), func(a, b Identity) int {
		return cmp.Compare(a.patterns(), b.patterns())
	})
	for _, identity := range identities {
		i, err := identity.signer()
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

func (p Policy) threshold() int { return max(p.Threshold, 1) }

// vote is a signature that counts.
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
		if !slices.ContainsFunc(votes, func(o vote) bool { return o.signer == v.signer || o.voucher.who() == v.voucher.who() }) {
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

// vote finds the signer for whom the candidate counts: the first whose rule it meets, and no other. No vote and no
// errors mean that nobody known made it.
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
			// Whoever signed, what is signed stays the same.
			return nil, []error{c.misuse(v, err, d)}
		}
		if err != nil {
			errs = append(errs, c.unusable(err))
		}
	}
	return nil, errs
}
