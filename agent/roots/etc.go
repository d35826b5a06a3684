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
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/facts"
)

// The /etc of a root lies in its directory. Other versions of it lie beside it, with these suffixes:
const (
	// EtcMerged is an /etc that is being removed.
	EtcMerged = ".merged"
	// EtcPrepared is an /etc that was merged for a switch and is not used yet. When the switch does not happen, the next
	// command removes it.
	EtcPrepared = ".prepared"
	// etcBefore is the /etc that the root was good with, while the root is tried with a new one. It is restored when the
	// root does not become good; otherwise it becomes etcOld.
	etcBefore = ".before"
	// etcOld is the former /etc of a good root, kept for the operator.
	etcOld = ".old"
)

// PrepareEtc merges /etc for the target of an apply while services still run. [Roots.MakeEtc] takes the result over,
// unless something has changed by then.
func PrepareEtc(r *Roots, id string, f facts.Facts, rec *record.Record) error {
	_, err := r.Machine.Trees.MergeEtc(r.EtcChange(id, f, rec), r.Next(id, f).Etc+EtcPrepared, true)
	return err
}

// MakeEtc merges /etc for the target of an apply; the target of any other switch keeps its own /etc. It returns
// which uids and gids the files of the image show.
func (r *Roots) MakeEtc(rec *record.Record, f facts.Facts, next assembly.Next) (copies.Owners, error) {
	if rec.Switch.Verb == record.VerbApply {
		if err := r.mergeEtc(r.EtcChange(next.ID, f, rec), next.Etc); err != nil {
			return copies.Owners{}, err
		}
	}
	return OwnersOf(r, next)
}

// mergeEtc makes the /etc of a root at dst, and keeps the former one beside it as etcBefore. At any moment the former
// /etc has one of these two names, so that it is found again after a crash.
func (r *Roots) mergeEtc(c machine.EtcChange, dst string) error {
	fresh, before, disk := dst+EtcPrepared, dst+etcBefore, r.Machine.Disk
	report, err := r.Machine.Trees.MergeEtc(c, fresh, false)
	if err != nil {
		return err
	}
	r.Log.Info("merged /etc", zap.Int("kept", len(report.Kept)), zap.Int("conflicts", len(report.Conflicts)))
	if disk.Exists(before) { // dst was merged for a switch that failed
		err = disk.Exchange(fresh, dst)
	} else {
		if err = disk.Rename(dst, before); errors.Is(err, fs.ErrNotExist) { // the root has never run
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

// RetireEtc renames the former /etc of a root to etcOld, because the root is good with its new one. RestoreEtcs no
// longer restores it. An even older /etc that cannot be removed must not keep the root from becoming good: it gets a
// name that is swept.
func (r *Roots) RetireEtc(id string) error {
	dir, disk := r.etcDir(id), r.Machine.Disk
	if !disk.Exists(dir + etcBefore) {
		return nil
	}
	err := disk.RemoveAll(dir + etcOld)
	if err != nil {
		r.Log.Warn("cannot remove an old /etc of this root", zap.String("root", id), zap.Error(err))
		err = disk.Rename(dir+etcOld, fmt.Sprintf("%s%s-%d.new", dir, etcOld, r.Now().UnixNano()))
	}
	if err = errors.Join(err, disk.Rename(dir+etcBefore, dir+etcOld)); err != nil {
		return fmt.Errorf("cannot retire the former /etc: %w", err)
	}
	return nil
}

// etcDir returns where the /etc of a root lies for this process.
func (r *Roots) etcDir(id string) string {
	return filepath.Join(r.Path(record.StateDir), "roots", id, "etc")
}

// restoreEtc replaces the /etc in dir by the former one beside it.
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
		return fmt.Errorf("cannot replace %s by the former /etc: %w", dir, err)
	}
	return nil
}

// RestoreEtcs restores, in every root but the running one, the /etc that the root was good with. It must be called
// only when no switch is under way. What fails is logged.
func (r *Roots) RestoreEtcs(f facts.Facts) {
	befores, err := r.Machine.Disk.Glob(r.Path(record.StateDir + "/roots/*/etc" + etcBefore))
	for _, before := range befores {
		if filepath.Base(filepath.Dir(before)) != f.Root {
			err = errors.Join(err, restoreEtc(r.Machine.Disk, strings.TrimSuffix(before, etcBefore)))
		}
	}
	if err != nil {
		r.Log.Warn("cannot restore the /etc that a root was good with", zap.Error(err))
	}
}

// EtcAt returns where the /etc that a root starts with lies for this process.
func (r *Roots) EtcAt(next assembly.Next, f facts.Facts) string {
	switch {
	case next.ID == f.Root:
		return r.Path("/etc")
	case next.ID == switcher.HostRoot:
		return r.Path(HostMount + "/etc")
	}
	return next.Etc
}

// EtcOf returns the /etc that a root was good with, as a path inside the host's tree.
func (r *Roots) EtcOf(root string) string {
	dir := filepath.Join(record.StateDir, "roots", root, "etc")
	if r.Machine.Disk.Exists(r.Machine.Path(dir + etcBefore)) {
		return dir + etcBefore
	}
	return dir
}

// PolicyEtc returns the /etc to read configuration, keys and trust roots from; "" is the /etc of the running root. On
// the host root it is the /etc of the last good root: the host root's own is as old as the first image, and would
// still trust keys that were revoked since. A host root that was switched to is judged by its own, as every root is.
func (r *Roots) PolicyEtc() (string, error) {
	if !r.Machine.Running || !r.Machine.Superuser {
		return "", nil
	}
	booted, err := r.Machine.MountedRoot()
	if err != nil || booted != switcher.HostRoot {
		return "", err
	}
	rec, err := r.Records.Read()
	if err != nil || rec.LastGood() == switcher.HostRoot || rec.Moving() && rec.Switch.Target == switcher.HostRoot {
		return "", err
	}
	etc := r.EtcOf(rec.LastGood())
	if !r.Machine.Disk.Exists(r.Machine.Path(filepath.Join(etc, "updatectl"))) {
		return "", nil
	}
	return etc, nil
}
