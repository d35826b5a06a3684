package host

import (
	"context"
	"fmt"
	"time"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

// Look returns the facts of the machine and the record. It changes neither. On the running host, a caller other than
// root gets an [ErrPermission]. The error is a [record.ErrUnmounted] on a host root whose state is not mounted, which
// would otherwise seem to be a new host.
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
	// Before the record is read: a file system that is mounted in between has one.
	if err := h.checkMounted(ctx, f); err != nil {
		return f, nil, err
	}
	rec, err := h.Records.Read()
	return f, rec, err
}

// checkMounted returns a [record.ErrUnmounted] if a host root has no record because its file system is not mounted. An
// image root without a record is another matter, see [record.ErrLost].
func (h *Host) checkMounted(ctx context.Context, f facts.Facts) error {
	if !h.Machine.Running || f.Root != switcher.HostRoot || h.Records.IsThere() {
		return nil
	}
	unit, err := h.Machine.Systemd.Unmounted(ctx, record.StateDir)
	if err != nil || unit == "" {
		return err
	}
	return fmt.Errorf("%w: %s should mount the file system of %s, and is not active", record.ErrUnmounted, unit,
		record.StateDir)
}
