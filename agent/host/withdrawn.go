package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/trust"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/verify"
)

// restrictionsFile keeps the restrictions of keys outside of every root's /etc: they outlive a rollback.
const restrictionsFile = record.StateDir + "/restrictions.json"

// maxRestrictions bounds that file, in bytes. A real one has less than a kilobyte for each key, and a trust root more
// where a log is required.
const maxRestrictions = 16 << 20

// Policy returns the signature policy: that of the configuration, with the restrictions of keys that outlive a
// rollback. Every command reads it anew, once, so replacing a file is all that a key rotation or a revocation needs.
// The error is a [config.ErrConfig], or says that the restrictions cannot be read.
func (h *Host) Policy() (verify.Policy, error) {
	h.policyOnce.Do(func() {
		if h.policy, h.policyErr = h.Config.Policy(h.Path, h.Now()); h.policyErr == nil {
			_, h.policyErr = h.restrict(&h.policy)
		}
	})
	return h.policy, h.policyErr
}

// restrict adds to the policy of the configuration the restrictions that are stored, and returns the updated ledger.
func (h *Host) restrict(p *verify.Policy) (trust.Ledger, error) {
	stored, err := h.storedRestrictions()
	if err != nil {
		return stored, err
	}
	root, err := h.policyRoot()
	if err != nil {
		return stored, err
	}
	l := stored.Update(trust.Of(*p, root), root, !h.PartOfConfig)
	h.kept = l.Kept(*p)
	return l, l.Restrict(p)
}

// KeptRestrictions returns, in words, the restrictions that hold although the configuration does not have them: those
// of keys that it lists. Without a valid policy there are none.
func (h *Host) KeptRestrictions() []string {
	if _, err := h.Policy(); err != nil {
		return []string{}
	}
	return h.kept
}

// KeptUnder returns the restrictions in the words of [Host.KeptRestrictions] that will hold in a root whose /etc is in
// a directory, although it does not have them: of those that [Host.KeepRestrictions] has stored. Without a valid policy
// there are none.
func (h *Host) KeptUnder(etc, root string) []string {
	l, err := h.storedRestrictions()
	if err != nil {
		return nil
	}
	p, err := h.policyIn(etc)
	if err != nil {
		return nil
	}
	return l.Update(trust.Of(p, root), root, true).Kept(p)
}

// policyIn returns the policy of the configuration in the /etc of another root. After an error, it has what could be
// read. What the image of that root has in /usr is not in it.
func (h *Host) policyIn(etc string) (verify.Policy, error) {
	path := func(p string) string {
		if rest, below := strings.CutPrefix(p, "/etc/updatectl/"); below {
			return filepath.Join(etc, "updatectl", rest)
		}
		return h.Machine.Path(p)
	}
	c, err := config.LoadUsable(path)
	if err != nil {
		return verify.Policy{}, err
	}
	return c.Policy(path, h.Now())
}

// KeepRestrictions stores the restrictions of the configuration. The caller must hold the lock.
func (h *Host) KeepRestrictions() error {
	p, perr := h.Config.Policy(h.Path, h.Now()) // after an error, it has what could be read
	root, err := h.policyRoot()
	if err != nil {
		return err
	}
	return h.keepRestrictions(p, root, perr == nil && !h.PartOfConfig)
}

// KeepRestrictionsOf stores the restrictions in the /etc of another root. It takes no restriction out.
func (h *Host) KeepRestrictionsOf(root, etc string) error {
	p, _ := h.policyIn(etc) // what could be read restricts
	return h.keepRestrictions(p, root, false)
}

// keepRestrictions stores the restrictions of a policy that was read from the /etc of a root. Whole is as in
// [trust.Ledger.Update].
func (h *Host) keepRestrictions(p verify.Policy, root string, whole bool) error {
	stored, err := h.storedRestrictions()
	if err != nil {
		return err
	}
	l := stored.Update(trust.Of(p, root), root, whole)
	if l.IsEmpty() && stored.IsEmpty() {
		return nil
	}
	text, err := json.Marshal(l)
	before, berr := json.Marshal(stored)
	if err = errors.Join(err, berr); err == nil && !bytes.Equal(text, before) {
		err = h.Machine.Disk.WriteFile(h.Path(restrictionsFile), append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the restrictions of keys, so a rollback may lose them: %w", err)
	}
	return nil
}

// storedRestrictions returns the stored ledger, an empty one if there is none.
func (h *Host) storedRestrictions() (trust.Ledger, error) {
	var l trust.Ledger
	text, err := h.Machine.Disk.ReadFile(h.Path(restrictionsFile), maxRestrictions)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission) && !h.Machine.Superuser:
		return l, nil
	case err == nil:
		err = json.Unmarshal(text, &l)
	}
	if err != nil {
		return l, fmt.Errorf("cannot read the restrictions of keys in %s: %w; repair the file, or remove it if every "+
			"revocation is in /etc/updatectl", restrictionsFile, err)
	}
	return l, nil
}

// policyRoot returns the root whose /etc has the configuration.
func (h *Host) policyRoot() (string, error) {
	switch {
	case h.PolicyEtc != "":
		return filepath.Base(filepath.Dir(h.PolicyEtc)), nil
	case !h.Machine.Running:
		return switcher.HostRoot, nil
	}
	return h.Machine.MountedRoot()
}
