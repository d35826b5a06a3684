package transition

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/cgroups"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// armStill is ArmTarget while nothing else runs.
func armStill(ctx context.Context, m *Mover, rec *record.Record) error {
	defer holdStill(ctx, m.Host)()
	return m.ArmTarget(ctx, rec)
}

// freezeRounds is how often groups are looked for: what is about to be frozen may have made new ones.
const freezeRounds = 3

// holdLimit is how long the arming step waits until everything holds still.
const holdLimit = 10 * time.Second

// holdStill freezes what still runs of users and containers while the arming step works in directories of theirs, and
// returns what thaws it. "Every service has stopped" does not mean that their processes have: cron and sshd leave those
// of a job or a session alone (KillMode=process), and so does systemd with scopes of containers. What does not hold
// still is ended. The step itself follows nobody's links, so it goes on if something cannot be frozen.
func holdStill(ctx context.Context, h *host.Host) (end func()) {
	if !h.Machine.Running {
		return func() {}
	}
	f := freezer{Host: h}
	thaw(h) // what a step that was killed has frozen
	late := time.AfterFunc(cgroups.Limit, f.end)
	done := make(chan error, 1)
	go func() { done <- f.freeze(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			h.Log.Warn("cannot freeze every process that still runs", zap.Error(err))
		}
	case <-time.After(holdLimit):
		h.Log.Warn("cannot freeze every process that still runs: finding them takes too long")
	}
	return func() {
		late.Stop()
		f.end()
	}
}

// freezer freezes the groups of a machine until it has ended.
type freezer struct {
	*host.Host
	mu    sync.Mutex
	ended bool // nothing is frozen any more
}

// thaw thaws what an arming step has frozen. That it cannot is only logged: it keeps nobody from what comes next.
func thaw(h *host.Host) {
	if err := h.Machine.Groups.Thaw(); err != nil {
		h.Log.Error("cannot thaw what was frozen while the new root was armed", zap.Error(err))
	}
}

func (f *freezer) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	thaw(f.Host)
}

func (f *freezer) freeze(ctx context.Context) error {
	groups, err := f.Machine.Groups.List()
	if err != nil || len(toFreeze(groups, nil)) == 0 { // services are away: no question more than needed
		return err
	}
	services, err := f.Machine.Units.Unstopped(ctx)
	if err != nil { // who is to survive is not known
		return err
	}
	for range freezeRounds {
		groups, err := f.Machine.Groups.List()
		if err != nil {
			return err
		}
		wanted := toFreeze(groups, services)
		if len(wanted) == 0 {
			return nil
		}
		if err := f.freezeThese(wanted); err != nil {
			return err
		}
	}
	return nil
}

// freezeThese freezes groups, and ends those that do not hold still soon.
func (f *freezer) freezeThese(groups []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return nil
	}
	f.Log.Info("freezing what still runs", zap.Strings("groups", groups))
	moving, err := f.Machine.Groups.Freeze(groups)
	if len(moving) > 0 {
		f.Log.Warn("ending what does not hold still", zap.Strings("groups", moving))
		err = errors.Join(err, f.Machine.Groups.Kill(moving))
	}
	return err
}

// toFreeze returns the groups to freeze: all but those that are frozen already, that of this process, and those on
// which the host or the switch depends. A group above one of these is left alone, too: its freezing would include it.
func toFreeze(groups []cgroups.Group, services []pid1.Service) []string {
	var spared, frozen []string
	for _, g := range groups {
		if isNeeded(g, services) {
			spared = append(spared, g.Path)
		}
	}
	for _, g := range groups {
		holdsSpared := slices.ContainsFunc(spared, func(s string) bool { return strings.HasPrefix(s+"/", g.Path+"/") })
		if !g.Frozen && !holdsSpared {
			frozen = append(frozen, g.Path)
		}
	}
	return frozen
}

// isNeeded reports whether the host or the switch depends on the processes of a group: PID 1, this step, the guard,
// units that survive a soft reboot, storage daemons, and services that PID 1 has not stopped: at the arming step only
// those are left that are meant to be there, and elsewhere the host needs all of them. Users name groups of theirs as
// they like, so the whole path counts.
func isNeeded(g cgroups.Group, services []pid1.Service) bool {
	isIn := func(group string) bool { return group != "" && strings.HasPrefix(g.Path+"/", group+"/") }
	if isIn("/init.scope") || isIn("/system.slice/"+pid1.GuardUnit) ||
		slices.ContainsFunc(g.Processes, func(p cgroups.Process) bool { return p.Self || servesStorage(p) }) {
		return true
	}
	isContained := slices.ContainsFunc(g.Processes, func(p cgroups.Process) bool { return p.Contained })
	return slices.ContainsFunc(services, func(s pid1.Service) bool {
		return (s.Survives || !isContained) && isIn(s.Group)
	})
}

// storageDaemons serve disks that the host runs from, and that have no "@" in their command line.
var storageDaemons = []string{"iscsid", "multipathd", "mdmon"}

// servesStorage reports whether a file system may hang without a process. Only root's counts: everybody can take such a
// name. "@" marks daemons that systemd leaves alone until the end (https://systemd.io/ROOT_STORAGE_DAEMONS/).
func servesStorage(p cgroups.Process) bool {
	return p.UID == 0 && !p.Contained &&
		(strings.HasPrefix(p.Command, "@") || slices.Contains(storageDaemons, p.Name) || p.Fuse)
}
