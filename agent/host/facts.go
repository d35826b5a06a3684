package host

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
)

// Look reads the machine and the record without changing either.
func (h *Host) Look(ctx context.Context) (facts.Facts, *record.Record, error) {
	if h.Machine.Live() && os.Geteuid() != 0 {
		return facts.Facts{}, nil, fmt.Errorf("cannot look at the host: %w", ErrPermission)
	}
	facts, err := h.Machine.Facts(ctx)
	if err != nil {
		return facts, nil, err
	}
	if limit := time.Duration(h.Config.Switch.MaxKernelAge); limit > 0 && !facts.KernelBooted.IsZero() {
		facts.RebootBy = facts.KernelBooted.Add(limit)
	}
	if facts.SELinuxOn {
		facts.SELinux = h.loadedPolicy(facts.SELinux)
	}
	rec, err := h.Records.Read()
	return facts, rec, err
}
