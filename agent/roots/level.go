package roots

import (
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Decide looks into a staged root and chooses the level, or refuses what cannot be done.
func (rs *Roots) Decide(st *store.Store, root store.Root, f facts.Facts, rec *record.Record, open []string, wish level.Level) (level.Decision, error) {
	t, err := rs.levelTarget(st, root.ID, f, open)
	if err != nil {
		return level.Decision{}, incompatible(err)
	}
	return rs.withLevel(level.Decide(f, t), wish, rec.Landed(root.ID, f))
}

// incompatible takes an error of looking into a root for the image's. That there is no room says nothing of it.
func incompatible(err error) error {
	if err == nil || record.NoRoom(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrIncompatible, err)
}

// DecideResume decides about going on from a boot of the kernel to the last good root, which ran before: what is about the
// host alone can refuse that.
func (rs *Roots) DecideResume(f facts.Facts) (level.Decision, error) {
	return rs.withLevel(level.DecideHost(f), "", true)
}

// withLevel completes what the checks say by what is wished for; "" is what is configured. Where the kernel was booted for
// the root already, another boot would bring nothing new. With an error the level is what the checks ask for.
func (rs *Roots) withLevel(d level.Decision, wish level.Level, booted bool) (level.Decision, error) {
	if booted && len(d.Refused()) == 0 {
		d.Level = level.Soft
		return d, nil
	}
	if wish == "" {
		wish = level.Level(rs.Config.Switch.Level)
	}
	level, err := chooseLevel(d, wish, rs.Config.Switch.Fallback)
	if err == nil {
		d.Level = level
	}
	return d, err
}

// chooseLevel turns what the checks say, what is wished for, and the configured fallback into the level of a switch.
func chooseLevel(d level.Decision, wish level.Level, fallback string) (level.Level, error) {
	refused, full := d.Refused(), d.NeedsFull()
	switch {
	case len(refused) > 0:
		return "", fmt.Errorf("%w: %s", ErrIncompatible, strings.Join(refused, "; "))
	case wish == level.Full:
		return level.Full, nil
	case len(full) == 0:
		return level.Soft, nil
	case wish == level.Auto && fallback == config.FallbackFull:
		return level.Full, nil
	}
	return "", fmt.Errorf("%w:\n%s", ErrFullReboot, strings.Join(full, "\n"))
}

// Restartable refuses a restart of userspace in the root that runs by what stands against it on the host: disks that it
// would detach, a kernel that is too old to go on with.
func Restartable(f facts.Facts) error {
	_, err := chooseLevel(level.DecideHost(f), level.Soft, config.FallbackRefuse)
	return err
}

// levelTarget is what the level of a switch to a root depends on; open are the fixes that the running kernel does not have.
func (rs *Roots) levelTarget(st *store.Store, id string, f facts.Facts, open []string) (level.Target, error) {
	t := level.Target{Root: id, Modules: HaveModules(f), OpenFixes: open}
	var err error
	if id == switcher.HostRoot {
		t.Image, err = rootfs.ReadImage(HostMount)
		return t, err
	}
	root, err := st.Root(id)
	if err != nil {
		return t, err
	}
	t.Architecture, t.Variant = root.Info.Platform.Architecture, root.Info.Platform.Variant
	image, err := rs.Next(st, id, f).Open()
	if err != nil {
		return t, err
	}
	defer image.Close()
	t.Image, err = rootfs.ReadImage(image.Path())
	return t, err
}

// HaveModules tells whether the modules of the running kernel are at hand.
func HaveModules(f facts.Facts) bool {
	return facts.HaveModules(rootfs.Kernel{Release: f.KernelRelease, Version: f.KernelVersion})
}

// checkWayBack tells whether a root that ran before can be gone back to. A wish for a full reboot does not hold anybody back
// from leaving a bad root: it is told and passed over.
func (rs *Roots) checkWayBack(st *store.Store, id string, f facts.Facts) error {
	t, err := rs.levelTarget(st, id, f, nil)
	if err != nil {
		rs.Log.Warn("cannot tell all that this root needs; going back to it all the same", zap.String("root", id), zap.Error(err))
	}
	d := level.Decide(f, t)
	if err == nil && len(d.Refused()) > 0 {
		return fmt.Errorf("%w: %s", ErrIncompatible, strings.Join(d.Refused(), "; "))
	}
	for _, reason := range d.NeedsFull() {
		rs.Log.Warn("going back by a soft reboot, though "+reason, zap.String("root", id))
	}
	return nil
}
