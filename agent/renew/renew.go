// Package renew answers what soft reboots leave old, and renews the units that are still active: a soft reboot does
// not stop units without a conflict with shutdown.target, and systemd does not start in the new root what is active.
// It promises that nothing is touched for which no list gives a reason, and that nothing waits for it.
package renew

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/keep"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Renewal renews units after a switch.
type Renewal struct {
	*host.Host
	// ReadStamp returns the stamp of the last switch since the kernel booted, nil if there was none.
	ReadStamp func() *level.Stamp
	Keep      keep.Keeper
}

// Old is a unit that a soft reboot leaves as it is, and why it is not renewed.
type Old struct {
	Unit   string `json:"unit"`
	Reason string `json:"reason"`
}

// Run renews what is active from the root that was left, once the host has arrived in another one. The jobs are
// queued, and run in the order that the units ask for: what sysinit.target is ordered after, it waits for. The error
// joins what could not be asked for.
func (r *Renewal) Run(ctx context.Context) error {
	stamp := r.ReadStamp()
	if stamp == nil {
		return nil
	}
	if rec, err := r.Records.Read(); err == nil && rec.Switch != nil {
		r.Keep.Resume(ctx, rec.Switch.Units)
	}
	rules, err := r.rules()
	services, serr := r.Machine.Units.Services(ctx)
	err = errors.Join(err, serr)
	var renewed []string
	for _, s := range services {
		if !isStanding(s, stamp.At) || s.Survives {
			continue
		}
		var failed error
		switch rules.find(s.Name).Action {
		case Renew:
			failed = r.Machine.Units.Renew(ctx, s.Name)
		case Devices:
			failed = r.Machine.Units.TriggerDevices(ctx)
		default:
			continue
		}
		if err = errors.Join(err, failed); failed == nil {
			renewed = append(renewed, s.Name)
		}
	}
	started, werr := r.Machine.Units.StartWanted(ctx)
	users, uerr := r.Machine.Units.StartLingering(ctx)
	r.Log.Info("what the soft reboot left active is renewed", zap.Strings("units", renewed),
		zap.Strings("started_for_devices", started), zap.Strings("started_for_users", users))
	return errors.Join(err, werr, uerr)
}

// isStanding reports whether a service is as it was before a time. The agent's own are left out.
func isStanding(s pid1.Service, since time.Duration) bool {
	return s.Changed < since && !strings.HasPrefix(s.Name, "updatectl")
}

// Left returns what is active from the root that was left and stays as it is, sorted by name.
func (r *Renewal) Left(ctx context.Context) ([]Old, error) {
	stamp := r.ReadStamp()
	if stamp == nil {
		return nil, nil
	}
	return r.old(ctx, func(s pid1.Service, rule Rule) string {
		failed := "renewing it failed (journalctl -u " + pid1.RenewUnit + " -u " + s.Name + ")"
		switch {
		case isStanding(s, stamp.At) && rule.Action == Renew && !s.Survives:
			return failed
		case isStanding(s, stamp.At):
			return stays(s, rule)
		case s.ReloadFailed && rule.Action == Renew:
			return failed
		}
		return ""
	})
}

// Staying returns what the next soft reboot leaves active and as it is, sorted by name.
func (r *Renewal) Staying(ctx context.Context) ([]Old, error) {
	return r.old(ctx, func(s pid1.Service, rule Rule) string {
		ends := s.Stops || s.Runs && !s.Survives && rule.Action != Keep // what has a process is killed
		if ends || strings.HasPrefix(s.Name, "updatectl") {
			return ""
		}
		return stays(s, rule)
	})
}

// stays returns why a service that a soft reboot leaves active is not renewed, "" if it is, or need not be.
func stays(s pid1.Service, rule Rule) string {
	switch {
	case s.Survives:
		return "it survives soft reboots (SurviveFinalKillSignal=)"
	case rule.Action == Keep, rule.Action == Devices:
		return cmp.Or(rule.Reason, "a list says so")
	case rule.Action != "":
		return ""
	}
	return "no list says how to renew it (/etc/updatectl/renew.d)"
}

// old returns the active services for which why has a reason.
func (r *Renewal) old(ctx context.Context, why func(pid1.Service, Rule) string) ([]Old, error) {
	rules, err := r.rules()
	if err != nil {
		r.Log.Warn("a list of units to renew is not valid", zap.Error(err))
	}
	services, err := r.Machine.Units.Services(ctx)
	if err != nil {
		return nil, err
	}
	var list []Old
	for _, s := range services {
		if reason := why(s, rules.find(s.Name)); reason != "" {
			list = append(list, Old{s.Name, reason})
		}
	}
	slices.SortFunc(list, func(a, b Old) int { return strings.Compare(a.Unit, b.Unit) })
	return list, nil
}
