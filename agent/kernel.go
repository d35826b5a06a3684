package agent

import (
	"context"

	"github.com/updatectl/updatectl/agent/renew"
)

// Kernel returns what soft reboots left old in the running kernel. It changes nothing.
func (a *Agent) Kernel(ctx context.Context) (k renew.KernelStatus, err error) {
	if err := a.RequireRunning(); err != nil {
		return k, err
	}
	f, _, err := a.Look(ctx)
	if err == nil {
		k, err = a.Renewal.Kernel(ctx, f, a.Roots.HaveModules(f))
		k.FullReboots = a.Boot.Default()
	}
	return k, err
}
