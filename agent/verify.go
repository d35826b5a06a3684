package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/verify"
)

// ErrEvidence means that the evidence of a root does not satisfy today's policy.
var ErrEvidence = errors.New("the evidence does not satisfy the policy")

// Rechecked is the answer of verify: what the evidence of a root proves today.
type Rechecked struct {
	Root    string `json:"root"`
	Version string `json:"version,omitempty"`
	// Vouchers are the signers whose signatures today's policy accepts; VerifiedAt is when the evidence was fetched.
	Vouchers   []verify.Voucher `json:"vouchers"`
	VerifiedAt time.Time        `json:"verified_at"`
}

// Verify checks the stored evidence of a root again, offline, by today's policy. Name is the identity of the root or
// its beginning; "" is the staged root, or else the running one. The error is a [roots.ErrNoRoot] or an ErrEvidence.
func (a *Agent) Verify(ctx context.Context, name string) (Rechecked, error) {
	f, rec, err := a.Look(ctx)
	if err != nil {
		return Rechecked{}, err
	}
	if name == "" {
		name = rec.Staged
	}
	if name == "" {
		name = f.Root
	}
	root, err := a.Roots.Find(name)
	if err != nil {
		return Rechecked{}, err
	}
	policy, err := a.Policy()
	if err != nil {
		return Rechecked{}, err
	}
	version := cmp.Or(rec.Accepted[root.ID].Version, root.Info.Version)
	r := Rechecked{Root: root.ID, Version: version, VerifiedAt: root.Info.VerifiedAt}
	if r.Vouchers, err = recheck(root, policy); err != nil {
		return r, fmt.Errorf("%w: root %s: %w", ErrEvidence, root.ID, err)
	}
	return r, nil
}

// recheck returns who vouches for a root, by the evidence beside it and today's policy.
func recheck(root store.Root, policy verify.Policy) ([]verify.Voucher, error) {
	evidence, err := root.Evidence()
	if errors.Is(err, store.ErrNoEvidence) {
		return nil, fmt.Errorf("%w: %w", verify.ErrUnsigned, err)
	}
	if err != nil {
		return nil, err
	}
	v, err := policy.Again(evidence)
	if err != nil {
		return nil, err
	}
	// The root is booted by its name, so the evidence must be for that name, whatever image.json says.
	if id := v.Digest().Algorithm().String() + "-" + v.Digest().Encoded(); id != root.ID {
		return nil, fmt.Errorf("%w: the evidence is for %s", verify.ErrDigest, id)
	}
	return v.Vouchers(), nil
}
