package verify

import (
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
)

// keySigner is a key that was checked.
type keySigner struct{ Key }

// signer checks the key, and computes its ID: the one that the caller set is not used.
func (k Key) signer() (*keySigner, error) {
	var err error
	if k.ID, err = keyID(k.Public); err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrKey, k.Name, err)
	}
	if k.Log == "" {
		k.Log = LogOff
	}
	if err := k.Root.check(k.Log, false); err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrKey, k.Name, err)
	}
	return &keySigner{k}, nil
}

// Restrict adds the restrictions of another listing of the same key. Where both restrict it, the stricter one counts.
func (k *Key) Restrict(again Key) {
	if again.Revoked && !k.Revoked {
		k.Revoked, k.Reason = true, again.Reason
	}
	if !again.NotAfter.IsZero() && (k.NotAfter.IsZero() || again.NotAfter.Before(k.NotAfter)) {
		k.NotAfter = again.NotAfter
	}
	if again.Log.Rank() > k.Log.Rank() {
		k.Log, k.Root = again.Log, again.Root
	}
}

func (k *keySigner) name() string { return k.Name }

func (k *keySigner) vouch(s *sealed, now time.Time) (*Voucher, error) {
	if !k.signed(s.message, s.signature) {
		return nil, nil
	}
	if k.Revoked {
		why := ""
		if k.Reason != "" {
			why = ": " + k.Reason
		}
		return nil, &refused{fmt.Sprintf("%s signed it and is revoked%s", k.Name, why), ErrRevoked}
	}
	v := &Voucher{Signer: k.Name, KeyID: k.ID, Form: s.form}
	if err := caught(func() error { return k.prove(s, v) }); err != nil {
		return nil, err
	}
	when := v.SignedAt
	if when.IsZero() {
		when = now
	}
	if !k.NotAfter.IsZero() && when.After(k.NotAfter) {
		return nil, &refused{fmt.Sprintf("%s signed it and expired on %s; nothing proves that the signature is older",
			k.Name, stamp(k.NotAfter)), ErrExpired}
	}
	return v, nil
}

// prove checks the log entries and timestamps of the signature, as far as the rule requires, and adds what they prove
// to v.
func (k *keySigner) prove(s *sealed, v *Voucher) error {
	if k.Log == LogOff {
		return nil
	}
	e, err := newEntity(s)
	if err != nil {
		return &refused{fmt.Sprintf("cannot read the proofs of the signature by %s: %v", k.Name, err), ErrLog}
	}
	if !e.logged() && k.Log == LogRequired {
		return &refused{fmt.Sprintf("the signature by %s has no entry of a transparency log, and the policy asks "+
			"for one", k.Name), ErrLog}
	}
	material := root.TrustedMaterialCollection{k.Root.material, k.material()}
	var seen []time.Time
	if e.logged() {
		times, err := sigstore.VerifyTlogEntry(e, material, 1, true)
		if err == nil {
			v.Log, err = e.logEntry(material)
		}
		if err != nil {
			return &refused{fmt.Sprintf("the signature by %s is not proved by its log entries: %v", k.Name, err),
				ErrLog}
		}
		for _, t := range times {
			seen = append(seen, t.Time)
		}
	}
	stamps, _, err := sigstore.VerifySignedTimestamp(e, material)
	if err != nil {
		return &refused{fmt.Sprintf("cannot read the timestamps of the signature by %s: %v", k.Name, err),
			ErrTimestamp}
	}
	for _, t := range stamps {
		seen = append(seen, t.Time)
	}
	v.SignedAt = earliest(seen)
	return nil
}

// material returns the key in the form that the library expects, for any name that a bundle gives it.
func (k *keySigner) material() root.TrustedMaterial {
	return root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		v, err := signature.LoadVerifier(k.Public, crypto.SHA256)
		if err != nil {
			return nil, errors.Join(ErrKey, err)
		}
		return root.NewExpiringKey(v, time.Time{}, time.Time{}), nil
	})
}
