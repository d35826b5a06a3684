package agent

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/attempt"
	"github.com/updatectl/updatectl/agent/fleetlock"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/pause"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/trial"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/holding"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/verify"
)

// Status is the answer of status: what runs, what is staged, and what can be rolled back to.
type Status struct {
	// Phase is the phase in the record, or trying when the new root runs and the record does not say so yet.
	Phase  record.Phase `json:"phase"`
	Booted RootStatus   `json:"booted"`
	// Volatile is whether it runs on a throw-away copy of the state, and Healthy whether it was found healthy there.
	Volatile bool                  `json:"volatile,omitempty"`
	Healthy  bool                  `json:"healthy,omitempty"`
	Staged   *RootStatus           `json:"staged,omitempty"`
	Good     []RootStatus          `json:"good"`
	Bad      map[string]record.Bad `json:"bad,omitempty"`
	Pinned   []string              `json:"pinned,omitempty"`
	// Removed lists the roots in Bad that are no longer on the disk.
	Removed []string `json:"removed,omitempty"`
	// Paused is the pause of the operator, Slot what the host holds of the lock server, and Unattended how the last
	// unattended run ended; nil for none.
	Paused     *pause.Pause     `json:"paused,omitempty"`
	Slot       *fleetlock.Slot  `json:"slot,omitempty"`
	Unattended *attempt.Attempt `json:"unattended,omitempty"`
	// Refused is why the last attempt to take what is published failed, nil when it did not.
	Refused *record.Refused `json:"refused,omitempty"`
	// KeptRestrictions are the restrictions of keys that hold although the configuration does not have them.
	KeptRestrictions []string `json:"kept_restrictions,omitempty"`
	// Order says that the last accepted release no longer counts for the order of releases, "" if it does.
	Order string `json:"order,omitempty"`
	// NotReached counts, by root, the switches that ended before the root ran.
	NotReached map[string]record.Failed `json:"failed_switches,omitempty"`
	// Kernel is the running kernel with its live patches.
	Kernel struct {
		Release     string           `json:"release"`
		Version     string           `json:"version"`
		BuildID     string           `json:"build_id,omitempty"`
		BootID      string           `json:"boot_id"`
		SoftReboots int              `json:"soft_reboots"`
		BootedAt    time.Time        `json:"booted_at,omitzero"`
		RebootBy    time.Time        `json:"reboot_by,omitzero"` // by [switch] max-kernel-age
		LivePatches []live.LivePatch `json:"live_patches"`
	} `json:"kernel"`
	// Fixes are the kernel fixes named by the releases of the booted and the staged root and by the last release of live
	// patches.
	Fixes []live.Fix `json:"fixes,omitempty"`
	// System is the system state as systemd reports it; Failed lists the failed units.
	System string   `json:"system,omitempty"`
	Failed []string `json:"failed_units,omitempty"`
	// Holders are the processes that hold a root which the host has left.
	Holders []holding.Holder `json:"holders,omitempty"`
	// Armed is the root at /run/nextroot, "" when nothing is armed.
	Armed string `json:"armed,omitempty"`
	// Starting lists the units that the root being tried is still starting.
	Starting []string `json:"starting_units,omitempty"`
	// Switch is the switch under way, nil when there is none; Last is how the last switch ended.
	Switch *SwitchStatus  `json:"switch,omitempty"`
	Last   *record.Result `json:"last,omitempty"`
	// Resume counts the full reboots after which the host could not resume its last good root.
	Resume *record.Resume `json:"resume,omitempty"`
	// Health is the last report of the health gate, nil before the first switch.
	Health *trial.Report `json:"health,omitempty"`
	// Unhealthy is the last report about an unhealthy root, nil when that is Health or when the root is no longer bad.
	Unhealthy *trial.Report `json:"unhealthy,omitempty"`
}

// SwitchStatus is a switch under way, for people.
type SwitchStatus struct {
	// Verb is apply, rollback, resume or back.
	Verb    string    `json:"verb"`
	From    string    `json:"from"`
	Target  string    `json:"target"`
	Version string    `json:"version,omitempty"`
	At      time.Time `json:"at"`
	// Back is the root to roll back to when the target does not become good, "" when the host would stay.
	Back string `json:"back,omitempty"`
	// Deadline is when the target has to be good. It is zero until the target runs, and when its start is unknown.
	Deadline time.Time `json:"deadline,omitzero"`
}

// RootStatus is one root, for people.
type RootStatus struct {
	Root     string           `json:"root"`
	Version  string           `json:"version,omitempty"`
	Sequence int64            `json:"sequence,omitempty"` // of its release, 0 for an image without a release
	Name     string           `json:"name,omitempty"`
	Vouchers []verify.Voucher `json:"vouchers,omitempty"`
	// VerifiedAt is when the vouchers were verified.
	VerifiedAt time.Time `json:"verified_at,omitzero"`
}

// Status returns the state of the host. It changes nothing.
func (a *Agent) Status(ctx context.Context) (Status, error) {
	f, rec, err := a.Look(ctx)
	if err != nil {
		return Status{}, err
	}
	s := Status{
		Phase: rec.Phase, Booted: rootStatus(a.Machine.Trees, rec, f.Root), Bad: rec.Bad, Pinned: rec.Pinned,
		Refused: a.Records.Refused(), NotReached: rec.Failed, System: f.State, Failed: f.Failed, Last: rec.Last,
		Resume: rec.Resume, Health: a.Trial.LastReport(), Unhealthy: a.Trial.LastUnhealthy(rec),
		KeptRestrictions: a.KeptRestrictions(), Order: a.Offers.Order(rec).String(), Paused: pause.Current(a.Host),
		Unattended: attempt.Last(a.Host),
	}
	if s.Slot, err = a.Turn.Slot(); err != nil {
		a.Log.Warn(err.Error())
	}
	for _, id := range slices.Sorted(maps.Keys(rec.Bad)) {
		if _, err := a.Machine.Trees.Root(id); err != nil {
			s.Removed = append(s.Removed, id)
		}
	}
	s.Booted.Name = a.Roots.PrettyName(f.Root)
	s.Volatile, s.Healthy = f.Volatile, f.Volatile && rec.Healthy == f.Root
	if rec.Staged != "" {
		staged := rootStatus(a.Machine.Trees, rec, rec.Staged)
		s.Staged = &staged
	}
	for _, id := range slices.Backward(rec.Good) {
		s.Good = append(s.Good, rootStatus(a.Machine.Trees, rec, id))
	}
	s.Kernel.Release, s.Kernel.Version, s.Kernel.BuildID = f.KernelRelease, f.KernelVersion, f.KernelBuildID
	s.Kernel.BootID, s.Kernel.SoftReboots = f.BootID, f.SoftReboots
	s.Kernel.BootedAt, s.Kernel.RebootBy = f.KernelBooted, f.RebootBy
	if s.Kernel.LivePatches, err = a.Live.Survey(ctx, f, rec); err != nil {
		return s, err
	}
	if s.Fixes, err = a.Live.Coverage(ctx, f, rec, f.Root, rec.Staged, rec.LastGood()); err != nil {
		return s, err
	}
	if a.Machine.Running {
		err = a.statusNow(ctx, &s, f, rec)
	}
	return s, err
}

// statusNow adds what is known on the running host only: the switch under way, and what is armed.
func (a *Agent) statusNow(ctx context.Context, s *Status, f facts.Facts, rec *record.Record) (err error) {
	s.Phase, s.Switch = a.underWayNow(f, rec)
	if s.Phase == record.PhaseTrying && s.Switch != nil {
		if s.Starting, err = a.Trial.Gate().Systemd.Starting(ctx); err != nil {
			return err
		}
		s.Starting = slices.DeleteFunc(s.Starting, func(unit string) bool { return unit == pid1.ConfirmUnit })
	}
	if a.Machine.Superuser && a.Transition.ReadStamp() != nil { // a root was left since the kernel booted
		if s.Holders, err = a.Machine.Groups.Holders(); err != nil {
			a.Log.Warn("cannot see what holds a root that was left", zap.Error(err))
		}
	}
	s.Armed, err = a.Machine.Mounts.Armed()
	return err
}

// underWayNow returns the present phase and the switch under way, by the record and by what is mounted at /. The
// switch is nil when it has failed, even if the record does not say so yet.
func (a *Agent) underWayNow(f facts.Facts, rec *record.Record) (record.Phase, *SwitchStatus) {
	if !rec.Moving() {
		return rec.Phase, nil
	}
	sw, stamp := rec.Switch, a.Transition.ReadStamp()
	s := &SwitchStatus{
		Verb: sw.Verb, From: sw.From, Target: sw.Target, Version: sw.Version, At: sw.At, Back: rec.RollbackTarget(),
	}
	outcome, _ := level.Prove(sw.Expectation, f, stamp)
	arrived := rec.Phase == record.PhaseTrying && f.Root == sw.Target ||
		rec.Phase == record.PhaseArmed && outcome == level.Switched
	switch {
	case arrived && stamp != nil && stamp.At > 0:
		began := a.Now().UTC().Add(stamp.At - a.Machine.Kernel.SinceBoot())
		s.Deadline = began.Add(time.Duration(a.Config.Health.Deadline)).Round(time.Second)
		return record.PhaseTrying, s
	case arrived:
		return record.PhaseTrying, s
	case rec.Phase == record.PhaseArmed && outcome == level.Pending:
		return record.PhaseArmed, s
	}
	return rec.Phase, nil
}

// rootStatus returns what the record and the store know about a root.
func rootStatus(trees machine.Trees, rec *record.Record, id string) RootStatus {
	s := RootStatus{Root: id, Sequence: rec.Accepted[id].Sequence}
	if root, err := trees.Root(id); err == nil {
		s.Version, s.Name = cmp.Or(rec.Accepted[id].Version, root.Info.Version), root.Info.OS.PrettyName
		s.Vouchers, s.VerifiedAt = root.Info.Vouchers, root.Info.VerifiedAt
	}
	return s
}
