package roots

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// Decide chooses the level of a switch to a staged root; open are the fixes that the running kernel lacks, and wish ""
// is the configured level. The error is an ErrIncompatible when the root cannot run here, and an ErrFullReboot when it
// needs a full reboot that wish does not allow.
func (r *Roots) Decide(root store.Root, f facts.Facts, rec *record.Record, open []string,
	wish level.Level) (level.Decision, error) {
	t, err := r.levelTarget(root.ID, f, open)
	if err != nil {
		return level.Decision{}, incompatible(err)
	}
	if err := addLosses(&t, r.Machine.Trees, r.EtcChange(root.ID, f, rec), rec); err != nil {
		return level.Decision{}, err
	}
	return r.withLevel(level.Decide(f, t), wish, rec.Landed(root.ID, f))
}

// incompatible makes an error from reading an image an ErrIncompatible, unless it says nothing about the image: the
// disk is full or fails, or the machine lacks memory or descriptors.
func incompatible(err error) error {
	ofMachine := func(errno unix.Errno) bool { return errors.Is(err, errno) }
	if err == nil || record.NoRoom(err) || slices.ContainsFunc([]unix.Errno{
		unix.EIO, unix.ESTALE, unix.ENOMEM, unix.EMFILE, unix.ENFILE,
	}, ofMachine) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrIncompatible, err)
}

// DecideResume decides whether the host can resume its last good root after a full reboot. The root ran here before,
// so only the host is checked.
func (r *Roots) DecideResume(f facts.Facts) (level.Decision, error) {
	return r.withLevel(level.DecideHost(f), "", true)
}

// withLevel sets the level by the verdicts of the checks and a wish; "" is the configured level. Booted is whether the
// host made a full reboot for this root already: it needs no second one. With an error, the level is the one that the
// checks ask for.
func (r *Roots) withLevel(d level.Decision, wish level.Level, booted bool) (level.Decision, error) {
	if booted && len(d.Refused()) == 0 {
		d.Level = level.Soft
		return d, nil
	}
	if wish == "" {
		wish = level.Level(r.Config.Switch.Level)
	}
	level, err := chooseLevel(d, wish, r.Config.Switch.Fallback)
	if err == nil {
		d.Level = level
	}
	return d, err
}

// chooseLevel returns the level of a switch by the verdicts of the checks, the wish and the configured fallback. The
// error is an ErrIncompatible or an ErrFullReboot, with the reasons.
func chooseLevel(d level.Decision, wish level.Level, fallback string) (level.Level, error) {
	refused, full := d.Refused(), d.NeedsFull()
	switch {
	case len(refused) > 0:
		return "", fmt.Errorf("%w: %s", refusal(d), strings.Join(refused, "; "))
	case wish == level.Full:
		return level.Full, nil
	case len(full) == 0:
		return level.Soft, nil
	case wish == level.Auto && fallback == config.FallbackFull:
		return level.Full, nil
	}
	return "", fmt.Errorf("%w:\n%s", ErrFullReboot, strings.Join(full, "\n"))
}

// Restartable returns an ErrIncompatible when userspace cannot be restarted on this host, such as when disks would be
// detached, and an ErrFullReboot when the kernel is too old for it.
func Restartable(f facts.Facts) error {
	_, err := chooseLevel(level.DecideHost(f), level.Soft, config.FallbackRefuse)
	return err
}

// levelTarget returns what the level of a switch to a root depends on; open are the fixes that the running kernel
// lacks.
func (r *Roots) levelTarget(id string, f facts.Facts, open []string) (t level.Target, err error) {
	t = level.Target{Root: id, Modules: r.HaveModules(f), OpenFixes: open}
	if id != switcher.HostRoot {
		root, err := r.Machine.Trees.Root(id)
		if err != nil {
			return t, err
		}
		t.Architecture, t.Variant = root.Info.Platform.Architecture, root.Info.Platform.Variant
		t.KernelMin = root.Info.KernelMin
	}
	t.Image, err = r.Machine.Trees.Inspect(r.Next(id, f))
	return t, err
}

// checkReturn returns an ErrIncompatible when a root that ran before can no longer run on this host. When the checks
// ask for a full reboot, that is only logged: it must not keep the host in a bad root.
func (r *Roots) checkReturn(id string, f facts.Facts) error {
	t, err := r.levelTarget(id, f, nil)
	if err != nil {
		r.Log.Warn("cannot check what this root needs; switching to it anyway", zap.String("root", id), zap.Error(err))
		return nil
	}
	d := level.Decide(f, t)
	if len(d.Refused()) > 0 {
		return fmt.Errorf("%w: %s", ErrIncompatible, strings.Join(d.Refused(), "; "))
	}
	for _, reason := range d.NeedsFull() {
		r.Log.Warn("switching by a soft reboot, although "+reason, zap.String("root", id))
	}
	return nil
}
