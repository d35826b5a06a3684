package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/etc"
)

// Arm is the last thing that runs in the root that is left: the arming unit calls it when every service has stopped.
// It makes the new root's /etc and arms the root, or leaves a stamp that says why not; systemd then stays here.
func (a *Agent) Arm(ctx context.Context) error {
	rec, err := a.readRecord()
	if err != nil || rec.Phase != PhaseArmed {
		return err
	}
	queued, err := a.Machine.SoftRebootQueued(ctx)
	if err != nil {
		return err
	}
	if !queued { // another kind of shutdown, or the unit was stopped by hand
		return nil
	}
	err = a.arm(ctx, rec)
	stamp := switcher.Stamp{Target: rec.Switch.Target, At: sinceBoot()}
	if err != nil {
		stamp.Error = err.Error()
	}
	// The stamp is what will be read: the journal has stopped, too. A root that is armed is gone to without it, and what is
	// mounted at / then tells the rest: no failed unit is to meet it there.
	if serr := a.writeStamp(stamp); serr != nil {
		a.Log.Warn("cannot leave a stamp", zap.Error(serr))
	}
	if err != nil {
		a.Log.Error("cannot arm the new root; the host stays in this one", zap.Error(err))
	}
	return err
}

func (a *Agent) arm(ctx context.Context, rec *Record) error {
	facts, err := a.Machine.Facts(ctx)
	if err != nil {
		return err
	}
	st, err := a.openStore()
	if err != nil {
		return err
	}
	a.notePast(facts.Root)
	next := a.next(st, rec.Switch.Target, facts)
	if next.ID != switcher.HostRoot {
		if err := a.makeEtc(st, rec, facts, &next); err != nil {
			return err
		}
		next.Fstab = fstabPoints(next.Etc)
	}
	return switcher.Arm(next)
}

// makeEtc merges /etc for a root that is new to this host. One that ran before has its own, untouched.
func (a *Agent) makeEtc(st *store.Store, rec *Record, f switcher.Facts, next *switcher.Next) error {
	root, err := st.Root(next.ID)
	if err != nil {
		return err
	}
	return a.withEtc(st, root, f, rec, func(in etc.Inputs) error {
		if rec.Switch.Verb == verbApply {
			if err := a.mergeEtc(in, next.Etc); err != nil {
				return err
			}
		}
		var err error
		next.Owners.UID, next.Owners.GID, err = etc.Numbers(in.Next, next.Etc)
		return err
	})
}

// etcBefore ends the name under which the /etc that a root had at an earlier time is kept, until the root is good with
// its new one; then it is etcOld.
const (
	etcBefore = ".before"
	etcOld    = ".old"
)

// retireEtc makes room for the next time: the /etc that a root ran with before this one stays as the old one.
func retireEtc(dir string) error {
	if !exists(dir + etcBefore) {
		return nil
	}
	if err := errors.Join(os.RemoveAll(dir+etcOld), os.Rename(dir+etcBefore, dir+etcOld)); err != nil {
		return fmt.Errorf("cannot retire the former /etc: %w", err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// mergeEtc makes the /etc of a root. One that the root had from an earlier time is kept beside it: somebody may miss
// what was changed there.
func (a *Agent) mergeEtc(in etc.Inputs, dst string) error {
	fresh, before := dst+".merged", dst+etcBefore
	// A crash may have left the one that ran under the name of a merge, after the two changed places. At worst it is a
	// merge that never ran.
	if exists(fresh) && !exists(before) {
		if err := os.Rename(fresh, before); err != nil {
			return fmt.Errorf("cannot keep the former /etc: %w", err)
		}
	}
	report, err := etc.Merge(in, fresh)
	if err != nil {
		return err
	}
	a.Log.Info("merged /etc", zap.Int("kept", len(report.Kept)), zap.Int("conflicts", len(report.Conflicts)))
	err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, dst, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) { // the root never ran
		err = os.Rename(fresh, dst)
	} else if err == nil && exists(before) { // what ran is kept; this one was merged for a switch that failed
		err = os.RemoveAll(fresh)
	} else if err == nil {
		err = os.Rename(fresh, before)
	}
	if err != nil {
		return fmt.Errorf("cannot put the merged /etc in place: %w", err)
	}
	return nil
}

// sinceBoot reads the clock that systemd stamps units with; 0 when there is none.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func removeStamp(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the stamp of an earlier switch: %w", err)
	}
	return nil
}

func (a *Agent) writeStamp(s switcher.Stamp) error {
	text, err := json.Marshal(s)
	if err == nil {
		err = writeAtomically(a.path(stampFile), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot leave the stamp of the switch: %w", err)
	}
	return nil
}

// readStamp reads what the arming step left; nil when it left nothing.
func readStamp(file string) *switcher.Stamp {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var s switcher.Stamp
	if json.Unmarshal(text, &s) != nil {
		return nil
	}
	return &s
}
