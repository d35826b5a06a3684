package recheck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/updatectl/updatectl/agent/roots"
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
	// Warnings are the restrictions of keys that hold although the configuration does not have them.
	Warnings []string `json:"warnings,omitempty"`
}

// Verify checks the stored evidence of a root again, offline, by today's policy. Name is the identity of the root or
// its beginning; "" is the staged root, or else the running one. The error is a [roots.ErrNoRoot] or an ErrEvidence.
func Verify(ctx context.Context, r *roots.Roots, name string) (Rechecked, error) {
	f, rec, err := r.Look(ctx)
	if err != nil {
		return Rechecked{}, err
	}
	if name == "" {
		name = rec.Staged
	}
	if name == "" {
		name = f.Root
	}
	root, err := r.Find(name)
	if err != nil {
		return Rechecked{}, err
	}
	policy, err := r.Policy()
	if err != nil {
		return Rechecked{}, err
	}
	version := cmp.Or(rec.Accepted[root.ID].Version, root.Info.Version)
	done := Rechecked{Root: root.ID, Version: version, VerifiedAt: root.Info.VerifiedAt, Warnings: r.KeptRestrictions()}
	for _, warning := range done.Warnings {
		r.Log.Warn(warning)
	}
	done.Vouchers, err = Accepted(root, policy)
	return done, err
}

// Accepted returns who vouches for a root, by a policy. The error is an ErrEvidence.
func Accepted(root store.Root, policy verify.Policy) ([]verify.Voucher, error) {
	vouchers, err := Root(root, policy)
	if err != nil {
		err = fmt.Errorf("%w: root %s: %w", ErrEvidence, root.ID, err)
	}
	return vouchers, err
}
