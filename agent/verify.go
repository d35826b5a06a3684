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

// ErrEvidence means that the evidence of a root does not satisfy the policy of today.
var ErrEvidence = errors.New("the evidence does not convince")

// Rechecked is the answer of verify: what the evidence of a root proves now.
type Rechecked struct {
	Root    string `json:"root"`
	Version string `json:"version,omitempty"`
	// Vouchers are the signers as the policy of today sees them, and VerifiedAt when the evidence was taken.
	Vouchers   []verify.Voucher `json:"vouchers"`
	VerifiedAt time.Time        `json:"verified_at"`
}

// Verify judges the kept evidence of a root again, offline, by the policy of today. The root is named by its identity
// or the beginning of it; "" is the staged one, or the one that runs.
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
	r := Rechecked{Root: root.ID, Version: cmp.Or(rec.Accepted[root.ID].Version, root.Info.Version), VerifiedAt: root.Info.VerifiedAt}
	if r.Vouchers, err = recheck(root, policy); err != nil {
		return r, fmt.Errorf("%w: root %s: %w", ErrEvidence, root.ID, err)
	}
	return r, nil
}

// recheck tells who vouches for a root by the evidence beside it.
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
	// The name of the root is what is booted; what image.json says is not asked.
	if id := v.Digest().Algorithm().String() + "-" + v.Digest().Encoded(); id != root.ID {
		return nil, fmt.Errorf("%w: the evidence is for %s", verify.ErrDigest, id)
	}
	return v.Vouchers(), nil
}
