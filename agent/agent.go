// Package agent is the commands of updatectl: one file for each, with nothing in it but flow. It promises that the
// record on disk always names a good root to roll back to, and that the record is written before the act that makes it
// necessary.
//
// The whole update reads on one screen in apply.go. Between the two roots, when every service has stopped, the arming
// unit calls a.Transition.Arm ([transition.Mover.Arm]); in the new root, [Agent.Confirm] goes on. What is mounted at /
// is the truth: every command that changes anything first reconciles the record with it.
package agent

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/adoption"
	"github.com/updatectl/updatectl/agent/boot"
	"github.com/updatectl/updatectl/agent/changes"
	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/contents"
	"github.com/updatectl/updatectl/agent/garbage"
	"github.com/updatectl/updatectl/agent/guard"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/renew"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/agent/trial"
	"github.com/updatectl/updatectl/agent/turn"
	"github.com/updatectl/updatectl/switcher/livepatch"
)

var (
	// ErrTrying means that the running root is not confirmed yet. It wraps [record.ErrBlocked].
	ErrTrying = fmt.Errorf("%w: the running root is not confirmed yet", record.ErrBlocked)
	// ErrHostTooOld means that this host cannot run any image. It wraps [roots.ErrIncompatible].
	ErrHostTooOld = fmt.Errorf("%w: it cannot soft-reboot", roots.ErrIncompatible)
)

// Agent runs the commands on one host.
type Agent struct {
	*host.Host
	// The packages of the agent. Each answers one question about the host.
	Roots      roots.Roots
	Offers     offer.Offers
	Live       live.Patches
	Transition transition.Arrival
	Guards     guard.Guard
	Trial      trial.Trial
	Adoption   adoption.Adoption
	Changes    changes.Changes
	Contents   contents.Contents
	Renewal    renew.Renewal
	Garbage    garbage.Garbage
	Turn       turn.Turn
	Boot       boot.Boot
	// Progress receives how far a long step is; it may be nil.
	Progress func(Progress)
}

// Progress is how far a step is, in bytes. Total is 0 when it is unknown.
type Progress struct {
	Step  string `json:"step"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
}

// New returns an agent for the tree at root ("/" for this host) with the configuration in that tree, or with
// configFile when it is not "". The error is a [config.ErrConfig] when the configuration is invalid.
func New(root, configFile string, log *zap.Logger) (*Agent, error) {
	a := On(machine.Host(root, record.StateDir), config.Default(), log)
	etc, err := a.Roots.PolicyEtc()
	if err != nil {
		return a, err
	}
	a.PolicyEtc = etc
	a.Config, err = config.Load(a.Path, configFile)
	a.PartOfConfig = configFile != "" || err != nil
	return a, err
}

// On returns an agent that works on a machine with the given configuration.
func On(m machine.Machine, c config.Config, log *zap.Logger) *Agent {
	h := host.On(m, log)
	h.Config = c
	r := roots.Roots{Host: h}
	moves, starts := transition.NewArrival(h, r), boot.Boot{Host: h, Roots: r}
	moves.StartOnce = starts.StartOnce
	a := &Agent{
		Host: h, Roots: r, Offers: offer.Offers{Host: h}, Transition: moves,
		Live:     live.Patches{Host: h, Kernel: livepatch.Host(m.Root)},
		Trial:    trial.Trial{Host: h, Roots: r, Transition: moves},
		Guards:   guard.Guard{Host: h, Roots: r, Transition: moves},
		Adoption: adoption.Adoption{Host: h, Roots: r},
		Changes:  changes.Changes{Host: h, Roots: r},
		Contents: contents.Contents{Host: h, Roots: r},
		Renewal:  renew.Renewal{Host: h, ReadStamp: moves.ReadStamp, Keep: moves.Keep},
	}
	a.Garbage, a.Turn, a.Boot = garbage.Garbage{Host: h, Live: a.Live}, turn.Turn{Host: h}, starts
	a.Trial.Proving, a.Trial.Proved = a.Boot.NoteProving, a.tidyUp
	return a
}

// NewAnyway is like [New], but tolerates an invalid configuration, so that rollback and status still work: the agent
// uses the valid parts. An image is not confirmed with an invalid configuration, because no other image could be
// applied from it.
func NewAnyway(root, configFile string, log *zap.Logger) (*Agent, error) {
	a, err := New(root, configFile, log)
	if !errors.Is(err, config.ErrConfig) || configFile != "" {
		return a, err
	}
	log.Warn("the configuration is invalid; its valid parts are used", zap.Error(err))
	a.Trial.ConfigFault = err
	if a.Config, err = config.LoadUsable(a.Path); err != nil {
		return a, err
	}
	// A root would come up without its data if a state directory were missing here.
	if rec, rerr := a.Records.Read(); rerr == nil && rec.State != nil {
		a.Config.State = *rec.State
	}
	return a, nil
}
