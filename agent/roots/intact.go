package roots

import (
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

// CheckIntact returns a [store.ErrDamaged] if a staged root is not what was signed any more and a switch with that verb
// must not go to it. If it may, the damage is logged.
func CheckIntact(r *Roots, id, verb string) error {
	root, err := r.Machine.Trees.Root(id)
	if err == nil {
		err = r.Machine.Trees.Check(root)
	}
	if err == nil {
		return nil
	}
	if mayBeDamaged(verb) {
		r.Log.Warn("the root is not what was signed any more, but it was good and is the way back; "+
			"`updatectl fsck --repair` fetches what is damaged", zap.String("root", id), zap.Error(err))
		return nil
	}
	return fmt.Errorf("cannot switch to the root %s: %w", id, err)
}

// mayBeDamaged reports whether a switch goes on to a root that is damaged. An apply does not: the host stays in a root
// that works. Every other switch leads to a root that was good, from one that is worse: from a bad root, from one that
// the operator wants to leave, or from the host root, on which nothing of the image runs. One flipped bit must not keep
// the host there. What the kernel verifies, it still refuses to read.
func mayBeDamaged(verb string) bool { return verb != record.VerbApply }

// CheckWhole returns a [store.ErrDamaged] if a staged root or a file of it is not what was signed any more. The kernel
// verifies it afterwards, where it can. The error is an [ErrIncompatible] if it cannot and has to.
func CheckWhole(r *Roots, root store.Root) error {
	err := CanVerify(r)
	if err == nil {
		err = r.Machine.Trees.Check(root)
	}
	if err == nil {
		err = r.Machine.Trees.CheckObjects(root)
	}
	if err == nil {
		err = r.Machine.Trees.Seal(root)
	}
	if err != nil {
		return fmt.Errorf("cannot switch to the root %s: %w", root.ID, err)
	}
	return nil
}

// CanVerify returns an [ErrIncompatible] if the operator requires that the kernel verifies images and the file system
// cannot do that.
func CanVerify(r *Roots) error {
	if r.Config.Store.Verity != config.VerityRequire {
		return nil
	}
	has, err := r.Machine.Trees.HasVerity()
	if err == nil && !has {
		err = fmt.Errorf("%w: [store] verity is %q, and the file system of %s has no fs-verity; on ext4, `tune2fs -O "+
			"verity` adds it", ErrIncompatible, config.VerityRequire, r.Path(record.StateDir))
	}
	return err
}

// IntactGood returns the latest good root that is still what was signed, or the last good root if none is.
func IntactGood(r *Roots, f facts.Facts, rec *record.Record) string {
	return chooseIntact(rec.Good, func(id string) bool {
		root, err := r.Machine.Trees.Root(id) // there is none for the host root: staying on it is no resuming
		if err == nil {
			err = r.Machine.Trees.Check(root)
		}
		if err != nil && id != switcher.HostRoot {
			r.Log.Warn("a good root is damaged; `updatectl fsck --repair` fetches what is damaged",
				zap.String("root", id), zap.Error(err))
		}
		return err == nil && r.Machine.Disk.Exists(r.Next(id, f).Etc)
	})
}

// chooseIntact returns the root to resume: the latest good one that is intact, or the last one if none is.
func chooseIntact(good []string, intact func(id string) bool) string {
	for i := len(good) - 1; i >= 0; i-- {
		if intact(good[i]) {
			return good[i]
		}
	}
	return good[len(good)-1]
}
