package agent

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent/machine"

	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/trial"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/verify"
)

// Status is the answer of status: what runs, what waits, what can be gone back to.
type Status struct {
	// Phase is that of the record; a root that runs and is not good yet is being tried, also where nobody has recorded it.
	Phase  record.Phase          `json:"phase"`
	Booted RootStatus            `json:"booted"`
	Staged *RootStatus           `json:"staged,omitempty"`
	Good   []RootStatus          `json:"good"`
	Bad    map[string]record.Bad `json:"bad,omitempty"`
	Pinned []string              `json:"pinned,omitempty"`
	// NotReached counts the switches to a root that ended before it ran.
	NotReached map[string]record.Failed `json:"failed_switches,omitempty"`
	// Kernel is what keeps running, with its live patches.
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
	// Fixes tells of every fix of the kernel that the releases of the booted and the staged root, and the last release of live
	// patches, name.
	Fixes []live.Fix `json:"fixes,omitempty"`
	// System is systemd's word for the system, and the failed units.
	System string   `json:"system,omitempty"`
	Failed []string `json:"failed_units,omitempty"`
	// Armed is the root at /run/nextroot: "" when nothing is armed.
	Armed string `json:"armed,omitempty"`
	// Starting lists the units that a root which is tried is still starting.
	Starting []string `json:"starting_units,omitempty"`
	// Switch is the switch under way, nil when the host is on its way nowhere.
	Switch *SwitchStatus  `json:"switch,omitempty"`
	Last   *record.Result `json:"last,omitempty"`
	// Resume counts the boots of the kernel after which the last good root was set out for and not reached.
	Resume *record.Resume `json:"resume,omitempty"`
	// Health is the last report of the health gate, nil before the first switch.
	Health *trial.Report `json:"health,omitempty"`
	// Unhealthy is the last report that found a root unhealthy, when Health is a later one and the root is still bad.
	Unhealthy *trial.Report `json:"unhealthy,omitempty"`
}

// SwitchStatus is a switch under way as people see it.
type SwitchStatus struct {
	// Verb is apply, rollback, resume or back.
	Verb    string    `json:"verb"`
	From    string    `json:"from"`
	Target  string    `json:"target"`
	Version string    `json:"version,omitempty"`
	At      time.Time `json:"at"`
	// Back is where the host goes when the target does not become good, "" when it stays.
	Back string `json:"back,omitempty"`
	// Deadline is when the target has to be good; zero until it runs, or where nobody knows since when it does.
	Deadline time.Time `json:"deadline,omitzero"`
}

// RootStatus is one root as people see it.
type RootStatus struct {
	Root     string           `json:"root"`
	Version  string           `json:"version,omitempty"`
	Sequence int64            `json:"sequence,omitempty"` // of the release it was accepted as, 0 for an image on its own
	Name     string           `json:"name,omitempty"`
	Vouchers []verify.Voucher `json:"vouchers,omitempty"`
	// VerifiedAt is when the vouchers were found good.
	VerifiedAt time.Time `json:"verified_at,omitzero"`
}

// Status tells where the host stands. It changes nothing.
func (a *Agent) Status(ctx context.Context) (Status, error) {
	f, rec, err := a.Look(ctx)
	if err != nil {
		return Status{}, err
	}
	s := Status{
		Phase: rec.Phase, Booted: rootStatus(a.Machine.Trees, rec, f.Root), Bad: rec.Bad, Pinned: rec.Pinned, NotReached: rec.Failed,
		System: f.State, Failed: f.Failed, Last: rec.Last, Resume: rec.Resume, Health: a.Trial.Last(), Unhealthy: a.Trial.LastUnhealthy(rec),
	}
	s.Booted.Name = a.Roots.PrettyName(f.Root)
	if _, bad := rec.Bad[rec.Staged]; rec.Staged != "" && !bad { // apply would not switch to what was given up
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

// statusNow adds what only a running host can tell: the switch under way, and what is armed.
func (a *Agent) statusNow(ctx context.Context, s *Status, f facts.Facts, rec *record.Record) (err error) {
	s.Phase, s.Switch = a.underWayNow(f, rec)
	if s.Phase == record.PhaseTrying && s.Switch != nil {
		if s.Starting, err = a.Trial.Gate().Systemd.Starting(ctx); err != nil {
			return err
		}
		s.Starting = slices.DeleteFunc(s.Starting, func(unit string) bool { return unit == pid1.ConfirmUnit })
	}
	s.Armed, err = a.Machine.Mounts.Armed()
	return err
}

// underWayNow tells of the switch that the record is in, by what is mounted at /: none where it has failed and nobody has
// recorded that yet.
func (a *Agent) underWayNow(f facts.Facts, rec *record.Record) (record.Phase, *SwitchStatus) {
	if !rec.Moving() {
		return rec.Phase, nil
	}
	sw, stamp := rec.Switch, a.Transition.ReadStamp()
	s := &SwitchStatus{Verb: sw.Verb, From: sw.From, Target: sw.Target, Version: sw.Version, At: sw.At, Back: rec.WayBack()}
	outcome, _ := level.Prove(sw.Expectation, f, stamp)
	arrived := rec.Phase == record.PhaseTrying && f.Root == sw.Target || rec.Phase == record.PhaseArmed && outcome == level.Switched
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

func rootStatus(trees machine.Trees, rec *record.Record, id string) RootStatus {
	s := RootStatus{Root: id, Sequence: rec.Accepted[id].Sequence}
	if root, err := trees.Root(id); err == nil {
		s.Version, s.Name, s.Vouchers = cmp.Or(rec.Accepted[id].Version, root.Info.Version), root.Info.OS.PrettyName, root.Info.Vouchers
		s.VerifiedAt = root.Info.VerifiedAt
	}
	return s
}
