// Package host answers what is true on this host right now: what runs, who holds the lock, what the kernel keeps from
// earlier roots. Every room of the agent works on a [Host].
package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/verify"
)

// Host is the host that every room of the agent works on.
type Host struct {
	// Machine is the host, or another tree to work on.
	Machine machine.Machine
	// Config is the merged configuration.
	Config config.Config
	// Records keeps the record and the history.
	Records record.Store
	// Log takes what a person may want to follow; answers are returned.
	Log *zap.Logger
	// PolicyEtc stands in for the host's /etc where configuration and keys are read; "" is the host's own.
	PolicyEtc string

	policyOnce sync.Once
	policy     verify.Policy
	policyErr  error
}

// On returns the host that a machine is, with no configuration yet.
func On(m machine.Machine, log *zap.Logger) *Host {
	h := &Host{Machine: m, Log: log}
	h.Records = record.Store{Disk: m.Disk, Path: h.Path, Log: log, Now: h.Now}
	return h
}

// Now is the wall clock.
func (h *Host) Now() time.Time { return h.Machine.Now() }

// ErrPermission: the caller is not root.
var ErrPermission = errors.New("this needs root")

const lockFile = switcher.RunDir + "/lock"

// Path is a path of the host as this process sees it.
func (h *Host) Path(p string) string {
	if rest, below := strings.CutPrefix(p, "/etc/updatectl/"); below && h.PolicyEtc != "" {
		return h.Machine.Path(filepath.Join(h.PolicyEtc, "updatectl", rest))
	}
	return h.Machine.Path(p)
}

// Policy returns who may sign what runs here, read once by each command: a rotated key or a revocation needs no more than a
// file.
func (h *Host) Policy() (verify.Policy, error) {
	h.policyOnce.Do(func() { h.policy, h.policyErr = h.Config.Policy(h.Path, h.Now()) })
	return h.policy, h.policyErr
}

// RequireRunning refuses what makes sense on the running host only.
func (h *Host) RequireRunning() error {
	if !h.Machine.Running {
		return fmt.Errorf("cannot do this to another tree (--root %s): only the running host can switch", filepath.Clean(h.Machine.Root))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("cannot switch roots: %w", ErrPermission)
	}
	return nil
}
