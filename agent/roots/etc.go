package roots

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// MakeEtc merges /etc for a root that is new to this host. One that ran before has its own, untouched.
func (rs *Roots) MakeEtc(st *store.Store, rec *record.Record, f facts.Facts, next *assembly.Next) error {
	root, err := st.Root(next.ID)
	if err != nil {
		return err
	}
	return rs.WithEtc(st, root, f, rec, func(in etc.Inputs) error {
		if rec.Switch.Verb == record.VerbApply {
			if err := rs.mergeEtc(in, next.Etc); err != nil {
				return err
			}
		}
		var err error
		next.Owners.UID, next.Owners.GID, err = etc.Numbers(in.Next, next.Etc)
		return err
	})
}

// The /etc of a root lies in its directory. What ends its name beside it:
const (
	// EtcMerged is one that is being made, or put away.
	EtcMerged = ".merged"
	// etcBefore is the root's own, from when it ran before, while the root is tried with a new one. It comes back when
	// the root does not become good with that; else it becomes etcOld.
	etcBefore = ".before"
	// etcOld is one that somebody may miss.
	etcOld = ".old"
)

// mergeEtc makes the /etc of a root. One that the root had from an earlier time is kept beside it. There is the one or
// the other under its name at any time, so that a crash leaves no doubt which is which.
func (rs *Roots) mergeEtc(in etc.Inputs, dst string) error {
	fresh, before := dst+EtcMerged, dst+etcBefore
	report, err := etc.Merge(in, fresh)
	if err != nil {
		return err
	}
	rs.Log.Info("merged /etc", zap.Int("kept", len(report.Kept)), zap.Int("conflicts", len(report.Conflicts)))
	if rootfs.Exists(before) { // what is there was merged for a switch that failed
		err = etc.Replace(fresh, dst)
	} else {
		if err = os.Rename(dst, before); errors.Is(err, fs.ErrNotExist) { // the root never ran
			err = nil
		}
		if err == nil {
			err = os.Rename(fresh, dst)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot put the merged /etc in place: %w", err)
	}
	return nil
}

// RetireEtc keeps the /etc that a root ran with before this time as the old one: the root is good with its new one.
func RetireEtc(dir string) error {
	if !rootfs.Exists(dir + etcBefore) {
		return nil
	}
	if err := errors.Join(os.RemoveAll(dir+etcOld), os.Rename(dir+etcBefore, dir+etcOld)); err != nil {
		return fmt.Errorf("cannot retire the former /etc: %w", err)
	}
	return nil
}

// restoreEtc gives a root that did not become good with a new /etc its own again.
func restoreEtc(dir string) error {
	fresh := dir + EtcMerged
	err := os.RemoveAll(fresh)
	if err == nil {
		err = os.Rename(dir, fresh)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.Rename(dir+etcBefore, dir)
	}
	if err = errors.Join(err, os.RemoveAll(fresh)); err != nil {
		return fmt.Errorf("cannot restore the former /etc: %w", err)
	}
	return nil
}

// RestoreEtcs does that for every root but the one that runs, once no switch is under way.
func (rs *Roots) RestoreEtcs(f facts.Facts) {
	befores, err := filepath.Glob(rs.Path(record.StateDir + "/roots/*/etc" + etcBefore))
	for _, before := range befores {
		if filepath.Base(filepath.Dir(before)) != f.Root {
			err = errors.Join(err, restoreEtc(strings.TrimSuffix(before, etcBefore)))
		}
	}
	if err != nil {
		rs.Log.Warn("a root has another /etc than the one it was good with", zap.Error(err))
	}
}

// EtcOf is the /etc that a root was good with.
func EtcOf(root string) string {
	dir := filepath.Join(record.StateDir, "roots", root, "etc")
	if rootfs.Exists(dir + etcBefore) {
		return dir + etcBefore
	}
	return dir
}
