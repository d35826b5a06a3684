// Package agent decides: may this host move to another root, when, and what comes next. It promises that the record on
// disk always names a good root to go back to, and that it is written before the act that makes it necessary.
//
// The whole update reads in apply.go. [Agent.Confirm] goes on after the switch, in the new root; [Agent.Arm] runs in
// between, when every service has stopped. What is mounted at / is the truth; the record is reconciled with it at the
// start of every command that changes anything.
package agent

import (
	"errors"
	"fmt"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/livepatch"
)

// Errors that callers decide on; the command line has an exit code for each.
var (
	// ErrConfig: the configuration cannot be used as it is.
	ErrConfig = errors.New("the configuration is not valid")
	// ErrBlocked: not now; the same call may go through later or after somebody acted.
	ErrBlocked = errors.New("blocked for now")
	// ErrBusy: another updatectl holds the lock; it is ErrBlocked, too.
	ErrBusy = fmt.Errorf("%w: another updatectl is at work", ErrBlocked)
	// ErrGivenUp: the image failed here before; it is ErrBlocked, too.
	ErrGivenUp = fmt.Errorf("%w: this image was given up", ErrBlocked)
	// ErrTrying: the running root is not confirmed yet; it is ErrBlocked, too.
	ErrTrying = fmt.Errorf("%w: the running root is not confirmed to be good yet", ErrBlocked)
	// ErrFullReboot: the change needs a full reboot.
	ErrFullReboot = errors.New("a full reboot is needed")
	// ErrIncompatible: this image cannot run on this host.
	ErrIncompatible = errors.New("not compatible with this host")
	// ErrHostTooOld: this host cannot run any image; it is ErrIncompatible, too.
	ErrHostTooOld = fmt.Errorf("%w: it cannot soft-reboot", ErrIncompatible)
	// ErrSwitch: the host did not arrive in the root that was asked for.
	ErrSwitch = errors.New("the switch failed")
	// ErrUnhealthy: the root that the host was sent to did not become good, and the host went back by itself.
	ErrUnhealthy = errors.New("the new root was not healthy")
	// ErrBooted: going back by a soft reboot could not be had.
	ErrBooted = errors.New("the kernel is booted instead")
	// ErrNoRoot: there is no such root to go to.
	ErrNoRoot = errors.New("no such root")
	// ErrPermission: the caller is not root.
	ErrPermission = errors.New("this needs root")
)

// Where things are, as absolute paths of the host.
const (
	StateDir   = "/var/lib/updatectl"
	recordFile = StateDir + "/state.json"
	history    = StateDir + "/history.jsonl"
	healthFile = StateDir + "/health.json"
	sickFile   = StateDir + "/unhealthy.json"
	spareFile  = StateDir + "/spare"
	lockFile   = switcher.RunDir + "/lock"
	stampFile  = switcher.RunDir + "/armed.json"
	hostMount  = StateDir + "/host"
	// What confirm and the guard leave for each other where the record may not be written.
	backFile    = switcher.RunDir + "/back.json"
	verdictFile = switcher.RunDir + "/verdict.json"
	resumeStamp = switcher.RunDir + "/started"
	ledgerFile  = StateDir + "/ids.json" // whose every uid and gid ever was
)

// Agent works on one host.
type Agent struct {
	Records    struct{}
	Roots      struct{}
	Offers     struct{}
	Live       struct{}
	Transition struct{}
	// Machine is the host, or another tree to work on.
	Machine facts.Machine
	// Config is the merged configuration.
	Config Config
	// Log takes what a person may want to follow; answers are returned.
	Log *zap.Logger
	// Progress is told how far a long step is; it may be nil.
	Progress func(Progress)
	// Now is the clock.
	Now func() time.Time

	// etc stands in for the host's /etc, see [New]; "" is the host's own.
	etc string
	// fault is what is wrong with the configuration, see [NewAnyway].
	fault error
	// live is the kernel, for live patches.
	live livepatch.Kernel
}

// Progress says how far a step is, in bytes. Total is 0 when it is not known.
type Progress struct {
	Step  string `json:"step"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
}

// New makes an agent for the tree at root ("/" for this host) with the configuration found in it; configFile, when not
// "", is read instead of it.
func New(root, configFile string, log *zap.Logger) (*Agent, error) {
	a := &Agent{Machine: facts.Machine{Root: root}, Log: log, Now: time.Now, live: livepatch.Host(root)}
	etc, err := a.policyEtc()
	if err != nil {
		return a, err
	}
	a.etc = etc
	a.Config, err = LoadConfig(a.path, configFile)
	return a, err
}

// NewAnyway is [New] for what brings a host home or tells about it: a fault in the configuration does not keep it from
// that. What can be used is used, and the root is not one from which the host could be updated, so that an image does not
// become good with it.
func NewAnyway(root, configFile string, log *zap.Logger) (*Agent, error) {
	a, err := New(root, configFile, log)
	if !errors.Is(err, ErrConfig) || configFile != "" {
		return a, err
	}
	log.Warn("the configuration has a fault; what can be used of it is", zap.Error(err))
	a.fault = err
	if a.Config, err = usableConfig(a.path); err != nil {
		return a, err
	}
	// Without a part of its state, a root would come up empty.
	if rec, rerr := a.readRecord(); rerr == nil && rec.State != nil {
		a.Config.State = *rec.State
	}
	return a, nil
}

// policyEtc is where configuration, keys and trust roots are read. A boot of the kernel lands on the mutable host, whose
// /etc is that of the day on which the first image was applied; a key that was revoked since counts there. So they are
// read from the last good root's /etc, and with "" from where they usually are.
func (a *Agent) policyEtc() (string, error) {
	if !a.Machine.Live() || os.Geteuid() != 0 {
		return "", nil
	}
	booted, err := facts.MountedRoot()
	if err != nil || booted != switcher.HostRoot {
		return "", err
	}
	rec, err := a.readRecord()
	if err != nil || rec.good() == switcher.HostRoot {
		return "", err
	}
	etc := ownEtc(rec.good())
	if !rootfs.Exists(filepath.Join(etc, "updatectl")) {
		return "", nil
	}
	return etc, nil
}

// path is a path of the host as this process sees it.
func (a *Agent) path(p string) string {
	if rest, below := strings.CutPrefix(p, "/etc/updatectl/"); below && a.etc != "" {
		return a.Machine.Path(filepath.Join(a.etc, "updatectl", rest))
	}
	return a.Machine.Path(p)
}

// openStore opens the store for a command that may write to it.
func (a *Agent) openStore() (*store.Store, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("cannot work on the host's roots: %w", ErrPermission)
	}
	st, err := store.Open(a.path(StateDir))
	if err != nil {
		return nil, fmt.Errorf("cannot open the store: %w", err)
	}
	return st, nil
}

// requireLive refuses what only makes sense on the running host.
func (a *Agent) requireLive() error {
	if !a.Machine.Live() {
		return fmt.Errorf("cannot do this to another tree (--root %s): only the running host can switch", filepath.Clean(a.Machine.Root))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("cannot switch roots: %w", ErrPermission)
	}
	return nil
}
