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

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/guard"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/agent/trial"
	"github.com/updatectl/updatectl/switcher/livepatch"
)

var (
	// ErrTrying: the running root is not confirmed yet; it is ErrBlocked, too.
	ErrTrying = fmt.Errorf("%w: the running root is not confirmed to be good yet", record.ErrBlocked)
	// ErrHostTooOld: this host cannot run any image; it is ErrIncompatible, too.
	ErrHostTooOld = fmt.Errorf("%w: it cannot soft-reboot", roots.ErrIncompatible)
)

// Agent works on one host.
type Agent struct {
	*host.Host
	// The rooms of the agent, each of which answers one question about the host.
	Roots      roots.Roots
	Offers     offer.Offers
	Live       live.Patches
	Transition transition.Arrival
	Guards     guard.Guard
	Trial      trial.Trial
	// Progress is told how far a long step is; it may be nil.
	Progress func(Progress)
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
	a := On(machine.Host(root, record.StateDir), config.Default(), log)
	etc, err := a.Roots.PolicyEtc()
	if err != nil {
		return a, err
	}
	a.PolicyEtc = etc
	a.Config, err = config.Load(a.Path, configFile)
	return a, err
}

// On makes an agent that works on a machine with a configuration that is given.
func On(m machine.Machine, c config.Config, log *zap.Logger) *Agent {
	h := host.On(m, log)
	h.Config = c
	r := roots.Roots{Host: h}
	moves := transition.NewArrival(h, r)
	a := &Agent{
		Host: h, Roots: r, Offers: offer.Offers{Host: h}, Live: live.Patches{Host: h, Kernel: livepatch.Host(m.Root)},
		Transition: moves, Trial: trial.Trial{Host: h, Roots: r, Transition: moves}, Guards: guard.Guard{Host: h, Roots: r, Transition: moves},
	}
	a.Trial.Proved = a.tidyUp
	return a
}

// NewAnyway is [New] for what brings a host home or tells about it: a fault in the configuration does not keep it from
// that. What can be used is used, and the root is not one from which the host could be updated, so that an image does not
// become good with it.
func NewAnyway(root, configFile string, log *zap.Logger) (*Agent, error) {
	a, err := New(root, configFile, log)
	if !errors.Is(err, config.ErrConfig) || configFile != "" {
		return a, err
	}
	log.Warn("the configuration has a fault; what can be used of it is", zap.Error(err))
	a.Trial.Fault = err
	if a.Config, err = config.LoadUsable(a.Path); err != nil {
		return a, err
	}
	// Without a part of its state, a root would come up empty.
	if rec, rerr := a.Records.Read(); rerr == nil && rec.State != nil {
		a.Config.State = *rec.State
	}
	return a, nil
}
