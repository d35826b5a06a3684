package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/verify"
)

// evidenceName is the name of the file with the evidence of a root.
const evidenceName = "evidence.json"

// ErrNoEvidence means that a root has no evidence.
var ErrNoEvidence = errors.New("no evidence was kept")

// Evidence returns the evidence of the root, unverified: verify.Policy.Again verifies it. The error is an
// ErrNoEvidence or a verify.ErrMalformed.
func (r Root) Evidence() (verify.Evidence, error) {
	data, err := durable.ReadRegular(r.evidence(), verify.MaxEvidence)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return verify.Evidence{}, fmt.Errorf("%w for the root %s", ErrNoEvidence, r.ID)
	case errors.Is(err, durable.ErrNotRegular), errors.Is(err, durable.ErrTooLarge):
		return verify.Evidence{}, fmt.Errorf("cannot read the evidence: %w: %w", verify.ErrMalformed, err)
	case err != nil:
		return verify.Evidence{}, fmt.Errorf("cannot read the evidence: %w", err)
	}
	return verify.ParseEvidence(data)
}

func (r Root) evidence() string { return filepath.Join(r.Dir, evidenceName) }

// PutEvidence stores the evidence of the root being staged.
func (g *Staging) PutEvidence(e verify.Evidence) error {
	data, err := e.Bytes()
	if err == nil {
		err = os.WriteFile(g.path(rootsDir, evidenceName), data, 0o444)
	}
	if err != nil {
		return fmt.Errorf("cannot write the evidence: %w", AsNoSpace(err))
	}
	return nil
}

// Renew replaces the evidence and the vouchers of a root that was verified again, and returns the root. The policy may
// have changed, so that the old evidence is no longer accepted. If both are the same, nothing is written.
func (r Root) Renew(v *verify.Verified, at time.Time) (Root, error) {
	data, err := v.Evidence().Bytes()
	if err != nil {
		return r, fmt.Errorf("cannot renew the evidence: %w", err)
	}
	old, rerr := durable.ReadRegular(r.evidence(), verify.MaxEvidence)
	same, err := sameVouchers(r.Info.Vouchers, v.Vouchers()) // false after a crash between the two writes below
	if err != nil {
		return r, fmt.Errorf("cannot renew the evidence: %w", err)
	}
	if rerr == nil && bytes.Equal(old, data) && same {
		return r, nil
	}
	r.Info.Vouchers, r.Info.VerifiedAt = v.Vouchers(), at
	info, err := r.Info.encode()
	if err != nil {
		return r, fmt.Errorf("cannot renew the evidence: %w", err)
	}
	// The evidence comes first: after a crash in between, there must be no voucher without it.
	if err := durable.WriteFile(r.evidence(), data, 0o444); err != nil {
		return r, fmt.Errorf("cannot renew the evidence: %w", AsNoSpace(err))
	}
	if err := durable.WriteFile(filepath.Join(r.Dir, infoName), info, 0o444); err != nil {
		return r, fmt.Errorf("cannot renew the evidence: %w", AsNoSpace(err))
	}
	return r, nil
}

// sameVouchers compares vouchers as they are stored.
func sameVouchers(a, b []verify.Voucher) (bool, error) {
	x, xerr := json.Marshal(a)
	y, yerr := json.Marshal(b)
	return bytes.Equal(x, y), errors.Join(xerr, yerr)
}
