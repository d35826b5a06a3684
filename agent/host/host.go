package host

import (
	"errors"
	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
	"go.uber.org/zap"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/verify"
)

// Host is the host that every room of the agent works on.
type Host struct {
	// Machine is the host, or another tree to work on.
	Machine facts.Machine
	// Config is the merged configuration.
	Config config.Config
	// Records keeps the record and the history.
	Records record.Store
	// Log takes what a person may want to follow; answers are returned.
	Log *zap.Logger
	// Now is the wall clock.
	Now func() time.Time
	// PolicyEtc stands in for the host's /etc where configuration and keys are read; "" is the host's own.
	PolicyEtc string
}

// New returns the host whose tree is at root, "/" for the running one, with no configuration yet.
func New(root string, log *zap.Logger) *Host {
	h := &Host{Machine: facts.Machine{Root: root}, Log: log, Now: time.Now}
	h.Records = record.Store{Path: h.Path, Log: log, Now: func() time.Time { return h.Now() }}
	return h
}

var (
	// ErrPermission: the caller is not root.
	ErrPermission = errors.New("this needs root")
)

const (
	lockFile = switcher.RunDir + "/lock"
)

// Path is a path of the host as this process sees it.
func (h *Host) Path(p string) string {
	if rest, below := strings.CutPrefix(p, "/etc/updatectl/"); below && h.PolicyEtc != "" {
		return h.Machine.Path(filepath.Join(h.PolicyEtc, "updatectl", rest))
	}
	return h.Machine.Path(p)
}

// SinceBoot reads the clock that systemd stamps units with; 0 when there is none.
func SinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// Policy reads what the configuration names, at every run anew: a rotated key or a revocation needs no more than a file.
func (h *Host) Policy() (verify.Policy, error) { return h.Config.Policy(h.Path, h.Now()) }
