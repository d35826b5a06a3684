package host

import (
	"context"
	"fmt"
	"time"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
)

// Look returns the facts of the machine and the record. It changes neither. On the running host, a caller other than
// root gets an [ErrPermission].
func (h *Host) Look(ctx context.Context) (facts.Facts, *record.Record, error) {
	if h.Machine.Running && !h.Machine.Superuser {
		return facts.Facts{}, nil, fmt.Errorf("cannot read the state of the host: %w", ErrPermission)
	}
	f, err := h.Machine.Kernel.Facts(ctx)
	if err != nil {
		return f, nil, err
	}
	if limit := time.Duration(h.Config.Switch.MaxKernelAge); limit > 0 && !f.KernelBooted.IsZero() {
		f.RebootBy = f.KernelBooted.Add(limit)
	}
	if f.SELinuxOn {
		f.SELinux = h.loadedPolicy(f.SELinux)
	}
	rec, err := h.Records.Read()
	return f, rec, err
}
