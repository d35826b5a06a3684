package agent

import (
	"context"

	"github.com/updatectl/updatectl/agent/renew"
)

// Kernel returns what soft reboots left old in the running kernel. It changes nothing.
func (a *Agent) Kernel(ctx context.Context) (renew.KernelStatus, error) {
	if err := a.RequireRunning(); err != nil {
		return renew.KernelStatus{}, err
	}
	f, _, err := a.Look(ctx)
	if err != nil {
		return renew.KernelStatus{}, err
	}
	return a.Renewal.Kernel(ctx, f, a.Roots.HaveModules(f))
}
