// Package host answers what is true on this host right now: what runs, who holds the lock, what the kernel keeps from
// earlier roots. It promises that only one updatectl at a time changes the host. Every package of the agent works on a
// [Host].
package host

import (
	"errors"
	"fmt"
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

// Host is the host that every package of the agent works on.
type Host struct {
	// Machine is the running host, or another tree to work on.
	Machine machine.Machine
	// Config is the merged configuration.
	Config config.Config
	// Records keeps the record and the history.
	Records record.Store
	// Log takes progress and warnings for people; answers are returned.
	Log *zap.Logger
	// PolicyEtc is the /etc from which configuration and keys are read, "" for the host's own.
	PolicyEtc string
	// PartOfConfig is whether Config is not all of the configuration: a file was named, or some are invalid.
	PartOfConfig bool

	policyOnce sync.Once
	policy     verify.Policy
	policyErr  error
	kept       []string // restrictions that only the policy has, in words
}

// On returns a host on a machine, with an empty configuration.
func On(m machine.Machine, log *zap.Logger) *Host {
	h := &Host{Machine: m, Log: log}
	h.Records = record.Store{Disk: m.Disk, Path: h.Path, Log: log, Now: h.Now}
	return h
}

// Now returns the time of the wall clock.
func (h *Host) Now() time.Time { return h.Machine.Now() }

// ErrPermission means that the caller is not root.
var ErrPermission = errors.New("this must be run as the superuser (root)")

const lockFile = switcher.RunDir + "/lock"

// Path returns the path of a file of the host as this process sees it.
func (h *Host) Path(p string) string {
	if rest, below := strings.CutPrefix(p, "/etc/updatectl/"); below && h.PolicyEtc != "" {
		return h.Machine.Path(filepath.Join(h.PolicyEtc, "updatectl", rest))
	}
	return h.Machine.Path(p)
}

// RequireRunning returns an error unless the tree is the running host and the caller is root; without root, it is an
// [ErrPermission].
func (h *Host) RequireRunning() error {
	if !h.Machine.Running {
		return fmt.Errorf("cannot do this in another tree (--root %s): only the running host can switch roots or "+
			"load live patches", filepath.Clean(h.Machine.Root))
	}
	if !h.Machine.Superuser {
		return fmt.Errorf("cannot change the running host: %w", ErrPermission)
	}
	return nil
}
