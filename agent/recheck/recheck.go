// Package recheck answers whether today's policy still accepts the roots on the disk. It reads the evidence beside a
// root and not its files, and fetches nothing.
package recheck

import (
	"errors"
	"fmt"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
)

// Root returns who vouches for a root, by the evidence beside it and a policy. The error is a [verify.ErrNotTrusted],
// or says that the evidence cannot be read.
func Root(root store.Root, policy verify.Policy) ([]verify.Voucher, error) {
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

// Revoked returns an error that wraps [verify.ErrRevoked] if a revoked key keeps today's policy from accepting a root.
// It returns nil for the host root, and where that cannot be found out.
func Revoked(h *host.Host, id string) error {
	if id == switcher.HostRoot {
		return nil
	}
	policy, err := h.Policy()
	if err != nil {
		return nil
	}
	root, err := h.Machine.Trees.Root(id)
	if err != nil {
		return nil
	}
	if _, err := Root(root, policy); errors.Is(err, verify.ErrRevoked) {
		return fmt.Errorf("today's policy does not accept %s: %w", id, err)
	}
	return nil
}

// MayResume returns an error that wraps [verify.ErrRevoked] if the configuration refuses to resume a root that a
// revoked key signed.
func MayResume(h *host.Host, id string) error {
	if h.Config.Verify.RevokedRoots != config.RevokedRefuse {
		return nil
	}
	if err := Revoked(h, id); err != nil {
		return fmt.Errorf("[verify] revoked-roots = %q: %w", config.RevokedRefuse, err)
	}
	return nil
}

// OnReturn logs, and returns, what to know about trust before the host switches to a root that ran before: that a
// revoked key signed it, and which restrictions of keys hold there although its /etc does not have them.
func OnReturn(r *roots.Roots, id string, f facts.Facts) []string {
	warnings := []string{}
	if err := Revoked(r.Host, id); err != nil {
		warnings = append(warnings, err.Error())
	}
	if id != f.Root {
		warnings = append(warnings, r.KeptUnder(r.EtcAt(r.Next(id, f), f), id)...)
	}
	for _, warning := range warnings {
		r.Log.Warn(warning)
	}
	return warnings
}
