// Package maintenance answers how the host root is kept up to date while an image runs. It promises that nothing
// switches meanwhile, and that the running root stays as it is until the next full reboot.
package maintenance

import (
	"context"
	"fmt"

	"github.com/updatectl/updatectl/agent/boot"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/volatile"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/hostroot"
)

// Maintenance changes the host root of a host.
type Maintenance struct {
	*host.Host
	Boot boot.Boot
}

// ErrSwitching means that the host is between two roots. It is a [record.ErrBlocked].
var ErrSwitching = fmt.Errorf("%w: a switch is under way, and would end the program in the middle", record.ErrBlocked)

// verb is what holds the lock.
const verb = "host-root run"

// Run runs a program in the host root and returns its exit code, see [hostroot.Programs]. The error may be a
// [record.ErrBusy], an [ErrSwitching] or a [volatile.ErrRuns].
func (m *Maintenance) Run(ctx context.Context, p hostroot.Program) (code int, err error) {
	unlock, err := m.Lock(ctx, verb, false)
	if err != nil {
		return 0, err
	}
	defer unlock()
	f, rec, err := m.Look(ctx)
	if err != nil {
		return 0, err
	}
	underWay, err := m.Machine.Systemd.ShuttingDown(ctx)
	if err != nil {
		return 0, err
	}
	if rec.Moving() || underWay {
		return 0, ErrSwitching
	}
	if err := volatile.MayBegin(f, verb); err != nil {
		return 0, err
	}
	from := roots.HostMount
	if f.Root == switcher.HostRoot {
		from = "/"
	}
	code, err = m.Machine.HostRoot.Run(ctx, from, p)
	m.Boot.Renew(context.WithoutCancel(ctx)) // it may have changed what initrds are made from
	return code, err
}
