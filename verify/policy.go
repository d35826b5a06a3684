package verify

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Policy says who must have signed.
type Policy struct {
	Keys      []Key
	Threshold int // how many distinct keys must vouch; below 1 means 1
}

// Verify returns the content as verified when enough distinct keys vouch for
// its digest and it is what its media type says.
//
// The error is ErrKey for a policy that cannot work, else one below
// ErrNotTrusted.
func (p Policy) Verify(content []byte, mediaType string, c []Candidate) (*Verified, error) {
	keys, err := p.distinctKeys()
	if err != nil {
		return nil, err
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
	vouchers, err := p.count(keys, c, d)
	if err != nil {
		return nil, err
	}
	if err := checkContent(content, mediaType); err != nil {
		return nil, fmt.Errorf("cannot accept %s: %w", d, err)
	}
	return &Verified{content: bytes.Clone(content), digest: d, mediaType: mediaType, vouchers: vouchers}, nil
}

// distinctKeys returns the keys of the policy, each once whatever its names,
// with the ID that it has and not the one the caller wrote down.
func (p Policy) distinctKeys() ([]Key, error) {
	var keys []Key
	seen := make(map[string]bool)
	for _, k := range p.Keys {
		id, err := keyID(k.Public)
		if err != nil {
			return nil, fmt.Errorf("%w %s: %w", ErrKey, k.Name, err)
		}
		if !seen[id] {
			seen[id] = true
			keys = append(keys, Key{Name: k.Name, Public: k.Public, ID: id})
		}
	}
	if len(keys) == 0 {
		return nil, &refused{"no key is configured that could vouch for an image", ErrWrongKey}
	}
	if len(keys) < p.threshold() {
		return nil, &refused{fmt.Sprintf("%d keys must vouch and only %d are configured", p.threshold(), len(keys)), ErrThreshold}
	}
	return keys, nil
}

func (p Policy) threshold() int { return max(p.Threshold, 1) }

// count returns who vouches for d, or why that is not enough.
func (p Policy) count(keys []Key, candidates []Candidate, d digest.Digest) ([]Voucher, error) {
	form := make(map[string]Form) // of the first good signature, by key ID
	why := reasons{of: d, found: len(candidates)}
	for _, c := range candidates {
		key, err := c.vouch(keys, d)
		switch {
		case err != nil:
			why.add(key, c, err)
		case key != nil && form[key.ID] == "":
			form[key.ID] = c.Form
		}
	}
	var vouchers []Voucher
	for _, k := range keys {
		if f, ok := form[k.ID]; ok {
			vouchers = append(vouchers, Voucher{Signer: k.Name, KeyID: k.ID, Form: f})
		}
	}
	if len(vouchers) == 0 {
		return nil, why.refusal(keys)
	}
	if len(vouchers) < p.threshold() {
		names := make([]string, len(vouchers))
		for i, v := range vouchers {
			names[i] = v.Signer
		}
		return nil, &refused{fmt.Sprintf("%d of the %d keys needed vouched for %s (%s)",
			len(vouchers), p.threshold(), d, strings.Join(names, ", ")), ErrThreshold}
	}
	return vouchers, nil
}

// reasons collects why candidates did not count, so that the one sentence an
// operator reads is about the most telling of them.
type reasons struct {
	of        digest.Digest
	found     int
	other     error // by a configured key, for another image
	statement error // by a configured key, no image signature
	malformed error
	broken    int // how many are malformed
}

func (r *reasons) add(key *Key, c Candidate, err error) {
	var other *otherImage
	var statement *notForImage
	switch {
	case errors.As(err, &other):
		r.other = fmt.Errorf("the signature by %s is for %q", key.Name, other.digest)
	case errors.As(err, &statement):
		r.statement = fmt.Errorf("%s signed %s", key.Name, statement.what)
	default:
		r.broken++
		r.malformed = fmt.Errorf("cannot use the signature from %s: %w", c.From, err)
	}
}

// refusal is the verdict when no key vouched.
func (r *reasons) refusal(keys []Key) error {
	switch {
	case r.other != nil:
		return &refused{fmt.Sprintf("%v, not for %s", r.other, r.of), ErrDigest}
	case r.statement != nil:
		return &refused{fmt.Sprintf("no signature was found for %s: %v, which is no signature of an image", r.of, r.statement), ErrUnsigned}
	case r.broken == r.found:
		return &refused{fmt.Sprintf("no readable signature was found for %s: %v", r.of, r.malformed), ErrMalformed}
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.Name
	}
	were := "signatures were"
	if r.found == 1 {
		were = "signature was"
	}
	return &refused{fmt.Sprintf("%d %s found for %s, none by a configured key (%s)", r.found, were, r.of, strings.Join(names, ", ")), ErrWrongKey}
}
