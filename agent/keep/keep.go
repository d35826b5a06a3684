// Package keep hands units over to the next root: it judges whether they can be kept, and makes systemd keep them over
// a soft reboot. It promises that all it changes lies in /run, and that a switch that does not happen leaves no drop-in
// in force, but that of a service which has stopped and would lose its descriptors.
package keep

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Keeper keeps the units of a host that [[keep]] names.
type Keeper struct{ *host.Host }

const (
	// unitDir is where drop-ins hold in both roots, and are gone after a full reboot.
	unitDir  = "/run/systemd/system"
	dropIn   = "50-updatectl-keep.conf"
	holdFile = "60-updatectl-hold.conf"
)

// Judge returns how the units of [[keep]] are kept in a switch. Own is whether the new root starts with the /etc that
// it has, instead of a merged one.
func (k *Keeper) Judge(ctx context.Context, c machine.EtcChange, own bool) ([]keep.Kept, error) {
	names := k.Config.KeptUnits()
	if len(names) == 0 || !k.Machine.Running {
		return nil, nil
	}
	now, groups, err := k.Machine.Units.Kept(ctx, names)
	if err != nil {
		return nil, err
	}
	for name, u := range now {
		if u.Holds, err = k.Machine.Groups.Holding(groups[name], k.Config.State.Persist); err != nil {
			return nil, fmt.Errorf("cannot see what %s holds of the running root: %w", name, err)
		}
		now[name] = u
	}
	var kept []keep.Kept
	here := keep.Tree{Image: rootfs.Dir(k.Machine.Root)}
	here.Systemd = here.Image.Systemd()
	err = k.Machine.Trees.Units(c, own, func(there keep.Tree) {
		there.Systemd = there.Image.Systemd()
		for _, name := range names {
			kept = append(kept, keep.Judge(name, now[name], here, there))
		}
	})
	return kept, err
}

// Fates returns what becomes of the units of this host in a switch that makes a merged /etc.
func (k *Keeper) Fates(ctx context.Context, c machine.EtcChange) (fates []keep.UnitFate, err error) {
	kept, err := k.Judge(ctx, c, false)
	if err != nil {
		return nil, err
	}
	active, err := k.Machine.Units.Active(ctx)
	if err != nil {
		return nil, err
	}
	for i, a := range active {
		if !a.Survives {
			continue
		}
		if active[i].Holds, err = k.Machine.Groups.Holding(a.Group, k.Config.State.Persist); err != nil {
			return nil, fmt.Errorf("cannot see what %s holds of the running root: %w", a.Name, err)
		}
	}
	here := keep.Tree{Image: rootfs.Dir(k.Machine.Root)}
	err = k.Machine.Trees.Units(c, false, func(there keep.Tree) { fates = keep.Fates(active, kept, here, there) })
	return fates, err
}

// Keepable returns those units that can be kept. Each other one is logged: no way back depends on it.
func (k *Keeper) Keepable(ctx context.Context, c machine.EtcChange, own bool) []keep.Kept {
	kept, err := k.Judge(ctx, c, own)
	if err != nil {
		k.Log.Warn("no unit is kept over the switch", zap.Error(err))
		return nil
	}
	return slices.DeleteFunc(kept, func(u keep.Kept) bool {
		if u.Refusal != "" {
			k.Log.Warn("a unit is not kept over the switch", zap.String("unit", u.Unit), zap.String("reason", u.Refusal))
		}
		return u.Refusal != ""
	})
}

// maxDropIn bounds a drop-in that was written earlier, in bytes.
const maxDropIn = 64 << 10

// holdPatience is how long systemd may take to read its units anew. It needs less than a second.
const holdPatience = 20 * time.Second

// Hold makes systemd keep units over the soft reboot that is about to be requested. If it cannot, that is only logged:
// they restart then, as all others do.
func (k *Keeper) Hold(ctx context.Context, units []keep.Kept) {
	ctx, cancel := context.WithTimeout(ctx, holdPatience)
	defer cancel()
	if err := k.hold(ctx, units); err != nil {
		k.Log.Warn("cannot keep units over the switch", zap.Error(err))
	}
}

// hold is [Keeper.Hold] with its error. The drop-ins stay: they hold in the new root, too, and on the way back. A
// socket is held by a drop-in of its own, which is removed at once: it is in force until systemd reads its units anew,
// at the latest in the new root. The drop-ins of an earlier switch are removed from units that are not kept any more.
// Systemd reads its units anew only if that changes something: it answers nobody meanwhile.
func (k *Keeper) hold(ctx context.Context, units []keep.Kept) error {
	changed, err := k.removeOthers(units)
	if err != nil {
		return err
	}
	sockets := socketsOf(units)
	for _, u := range units {
		file, text := filepath.Join(unitDir, u.Unit+".d", dropIn), keep.DropIn(u.Way)
		if known, rerr := k.Machine.Disk.ReadFile(k.Path(file), maxDropIn); rerr == nil && string(known) == text {
			continue
		}
		changed = true
		err = errors.Join(err, k.write(file, text))
	}
	if !changed && len(sockets) == 0 {
		return err
	}
	if len(sockets) > 0 {
		err = errors.Join(err, k.write(filepath.Join(unitDir, keep.HoldUnit), keep.HoldText))
	}
	for _, s := range sockets {
		err = errors.Join(err, k.write(filepath.Join(unitDir, s+".d", holdFile), keep.Hold))
	}
	if err == nil {
		err = k.Machine.Units.Reload(ctx)
	}
	if err != nil { // a drop-in that lies there counts as read
		_, rerr := k.removeOthers(nil)
		err = errors.Join(err, rerr)
	}
	return errors.Join(err, k.removeHolds())
}

// Release takes back what [Keeper.Hold] did, because the switch does not happen. A service that has stopped loses its
// descriptors without its drop-in, so that stays; the next switch removes it. What fails is logged: it must keep nobody
// from what comes next.
func (k *Keeper) Release(ctx context.Context, units []keep.Kept) {
	if len(units) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), holdPatience)
	defer cancel()
	_, err := k.removeOthers(k.waiting(ctx, units))
	err = errors.Join(err, k.removeHolds(), k.Machine.Units.Reload(ctx))
	k.Resume(ctx, units)
	if err != nil {
		k.Log.Warn("cannot take back how units are kept over a switch", zap.Error(err))
	}
}

// waiting returns the units that have stopped and get their descriptors when they start again.
func (k *Keeper) waiting(ctx context.Context, units []keep.Kept) []keep.Kept {
	stores := slices.DeleteFunc(slices.Clone(units), func(u keep.Kept) bool { return u.Way != keep.Descriptors })
	if len(stores) == 0 {
		return nil
	}
	var names []string
	for _, u := range stores {
		names = append(names, u.Unit)
	}
	now, _, err := k.Machine.Units.Kept(ctx, names)
	if err != nil {
		k.Log.Warn("the descriptors of services stay kept", zap.Error(err))
	}
	return slices.DeleteFunc(stores, func(u keep.Kept) bool { return err == nil && now[u.Unit].Active })
}

// Resume has the services of kept sockets started: connections may wait for them.
func (k *Keeper) Resume(ctx context.Context, units []keep.Kept) {
	sockets := socketsOf(units)
	if len(sockets) == 0 {
		return
	}
	started, err := k.Machine.Units.StartHeld(ctx, sockets)
	if err != nil {
		k.Log.Warn("cannot start every service whose socket was kept", zap.Error(err))
	}
	if len(started) > 0 {
		k.Log.Info("starting services whose sockets were kept", zap.Strings("units", started))
	}
}

func socketsOf(units []keep.Kept) (sockets []string) {
	for _, u := range units {
		if u.Way == keep.Socket {
			sockets = append(sockets, u.Unit)
		}
	}
	return sockets
}

func (k *Keeper) write(file, text string) error {
	err := k.Machine.Disk.MkdirAll(k.Path(filepath.Dir(file)), 0o755)
	if err == nil {
		err = k.Machine.Disk.WriteFile(k.Path(file), []byte(text), 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot write how units are kept: %w", err)
	}
	return nil
}

// removeOthers removes the drop-ins of all units but some, and reports whether there were any.
func (k *Keeper) removeOthers(units []keep.Kept) (removed bool, err error) {
	files, err := k.Machine.Disk.Glob(k.Path(filepath.Join(unitDir, "*.d", dropIn)))
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(filepath.Dir(file)), ".d")
		if slices.ContainsFunc(units, func(u keep.Kept) bool { return u.Unit == name }) {
			continue
		}
		removed = true
		err = errors.Join(err, k.Machine.Disk.Remove(file))
	}
	return removed, err
}

// removeHolds removes the files by which sockets are held.
func (k *Keeper) removeHolds() error {
	files, err := k.Machine.Disk.Glob(k.Path(filepath.Join(unitDir, "*.d", holdFile)))
	for _, file := range files {
		err = errors.Join(err, k.Machine.Disk.Remove(file))
	}
	return err
}
