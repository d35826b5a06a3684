package roots

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
)

// The /etc of a root lies in its directory. These end its name beside it:
const (
	// EtcMerged is one that is being made, or put away.
	EtcMerged = ".merged"
	// etcBefore is the one that the root ran with before, while it is tried with a new one. It comes back when the root
	// does not become good with that; otherwise it becomes etcOld.
	etcBefore = ".before"
	// etcOld is one that somebody may miss.
	etcOld = ".old"
)

// MakeEtc merges /etc for a root that is new to this host, and returns how owners are translated when state is seeded from
// its image. A root that ran before keeps its own /etc.
func (r *Roots) MakeEtc(rec *record.Record, f facts.Facts, next assembly.Next) (assembly.Owners, error) {
	if rec.Switch.Verb == record.VerbApply {
		if err := r.mergeEtc(r.EtcChange(next.ID, f, rec), next.Etc); err != nil {
			return assembly.Owners{}, err
		}
	}
	return r.Machine.Trees.EtcOwners(next, next.Etc)
}

// mergeEtc makes the /etc of a root. One that the root had before is kept beside it. One of the two has its final name at
// any time, so that a crash leaves no doubt which is which.
func (r *Roots) mergeEtc(c machine.EtcChange, dst string) error {
	fresh, before, disk := dst+EtcMerged, dst+etcBefore, r.Machine.Disk
	report, err := r.Machine.Trees.MergeEtc(c, fresh)
	if err != nil {
		return err
	}
	r.Log.Info("merged /etc", zap.Int("kept", len(report.Kept)), zap.Int("conflicts", len(report.Conflicts)))
	if disk.Exists(before) { // the one at dst was merged for a switch that failed
		err = disk.Exchange(fresh, dst)
	} else {
		if err = disk.Rename(dst, before); errors.Is(err, fs.ErrNotExist) { // the root never ran
			err = nil
		}
		if err == nil {
			err = disk.Rename(fresh, dst)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot put the merged /etc in place: %w", err)
	}
	return nil
}

// RetireEtc keeps the /etc that a root ran with before as the old one: the root is good with its new one.
func (r *Roots) RetireEtc(id string) error {
	dir, disk := r.etcDir(id), r.Machine.Disk
	if !disk.Exists(dir + etcBefore) {
		return nil
	}
	if err := errors.Join(disk.RemoveAll(dir+etcOld), disk.Rename(dir+etcBefore, dir+etcOld)); err != nil {
		return fmt.Errorf("cannot retire the former /etc: %w", err)
	}
	return nil
}

func (r *Roots) etcDir(id string) string {
	return filepath.Join(r.Path(record.StateDir), "roots", id, "etc")
}

// restoreEtc gives a root that did not become good with a new /etc its own back.
func restoreEtc(disk durable.Disk, dir string) error {
	fresh := dir + EtcMerged
	err := disk.RemoveAll(fresh)
	if err == nil {
		err = disk.Rename(dir, fresh)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = disk.Rename(dir+etcBefore, dir)
	}
	if err = errors.Join(err, disk.RemoveAll(fresh)); err != nil {
		return fmt.Errorf("cannot restore the former /etc: %w", err)
	}
	return nil
}

// RestoreEtcs gives every root but the running one the /etc back that it was good with. It is called when no switch is
// under way.
func (r *Roots) RestoreEtcs(f facts.Facts) {
	befores, err := r.Machine.Disk.Glob(r.Path(record.StateDir + "/roots/*/etc" + etcBefore))
	for _, before := range befores {
		if filepath.Base(filepath.Dir(before)) != f.Root {
			err = errors.Join(err, restoreEtc(r.Machine.Disk, strings.TrimSuffix(before, etcBefore)))
		}
	}
	if err != nil {
		r.Log.Warn("a root has another /etc than the one it was good with", zap.Error(err))
	}
}

// EtcOf returns the /etc that a root was good with, as a path inside the host.
func (r *Roots) EtcOf(root string) string {
	dir := filepath.Join(record.StateDir, "roots", root, "etc")
	if r.Machine.Disk.Exists(r.Machine.Path(dir + etcBefore)) {
		return dir + etcBefore
	}
	return dir
}

// PolicyEtc returns the /etc to read configuration, keys and trust roots from; "" is the host's own. A full reboot lands on
// the host root, whose /etc is as old as the first image: it would still trust keys that were revoked since. So they are
// read from the /etc of the last good root there.
func (r *Roots) PolicyEtc() (string, error) {
	if !r.Machine.Running || !r.Machine.Superuser {
		return "", nil
	}
	booted, err := r.Machine.MountedRoot()
	if err != nil || booted != switcher.HostRoot {
		return "", err
	}
	rec, err := r.Records.Read()
	if err != nil || rec.LastGood() == switcher.HostRoot {
		return "", err
	}
	etc := r.EtcOf(rec.LastGood())
	if !r.Machine.Disk.Exists(r.Machine.Path(filepath.Join(etc, "updatectl"))) {
		return "", nil
	}
	return etc, nil
}
