package verify

import (
	"slices"
	"time"
)

// Lapsed returns the names of those who vouched and no longer count, if the others are fewer than the policy requires;
// otherwise nil. At is when the vouchers were accepted. Who vouched and still counts keeps that, even if the policy
// requires more signers today. The error is that of [Policy.Check].
func (p Policy) Lapsed(vouchers []Voucher, at time.Time) ([]string, error) {
	signers, err := p.signers()
	if err != nil {
		return nil, err
	}
	var lapsed []string
	for _, v := range vouchers {
		if !slices.ContainsFunc(signers, func(s signer) bool { return s.counts(v, at) }) {
			lapsed = append(lapsed, v.Signer)
		}
	}
	if len(vouchers)-len(lapsed) >= p.threshold() {
		return nil, nil
	}
	return lapsed, nil
}

// counts reports whether the key vouched and still would, had it to do so at that time.
func (k *keySigner) counts(v Voucher, at time.Time) bool {
	if !v.SignedAt.IsZero() {
		at = v.SignedAt
	}
	return v.KeyID == k.ID && !k.Revoked && (k.NotAfter.IsZero() || !at.After(k.NotAfter)) &&
		(k.Log != LogRequired || v.Log != LogEntry{})
}

// counts reports whether the rule matches who vouched, and has the proof that it requires.
func (i *identitySigner) counts(v Voucher, _ time.Time) bool {
	return v.KeyID == "" && matches(i.match, v) && i.whyRevoked(v) == nil && (i.Log != LogRequired || v.Log != LogEntry{})
}
