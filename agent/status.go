package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/verify"
)

// Status is the answer of status: what runs, what waits, what can be gone back to.
type Status struct {
	// Phase is that of the record; a root that runs and is not good yet is being tried, also where nobody has recorded it.
	Phase  Phase          `json:"phase"`
	Booted RootStatus     `json:"booted"`
	Staged *RootStatus    `json:"staged,omitempty"`
	Good   []RootStatus   `json:"good"`
	Bad    map[string]Bad `json:"bad,omitempty"`
	Pinned []string       `json:"pinned,omitempty"`
	// NotReached counts the switches to a root that ended before it ran.
	NotReached map[string]Failed `json:"failed_switches,omitempty"`
	// Kernel is what keeps running, with its live patches.
	Kernel struct {
		Release     string      `json:"release"`
		Version     string      `json:"version"`
		BuildID     string      `json:"build_id,omitempty"`
		BootID      string      `json:"boot_id"`
		SoftReboots int         `json:"soft_reboots"`
		BootedAt    time.Time   `json:"booted_at,omitzero"`
		RebootBy    time.Time   `json:"reboot_by,omitzero"` // by [switch] max-kernel-age
		LivePatches []LivePatch `json:"live_patches"`
	} `json:"kernel"`
	// Fixes tells of every fix of the kernel that the releases of the booted and the staged root, and the last release of live
	// patches, name.
	Fixes []Fix `json:"fixes,omitempty"`
	// System is systemd's word for the system, and the failed units.
	System string   `json:"system,omitempty"`
	Failed []string `json:"failed_units,omitempty"`
	// Armed is the root at /run/nextroot: "" when nothing is armed.
	Armed string `json:"armed,omitempty"`
	// Starting lists the units that a root which is tried is still starting.
	Starting []string `json:"starting_units,omitempty"`
	// Switch is the switch under way, nil when the host is on its way nowhere.
	Switch *SwitchStatus `json:"switch,omitempty"`
	Last   *Result       `json:"last,omitempty"`
	// Resume counts the boots of the kernel after which the last good root was set out for and not reached.
	Resume *Resume `json:"resume,omitempty"`
	// Health is the last report of the health gate, nil before the first switch.
	Health *HealthReport `json:"health,omitempty"`
	// Unhealthy is the last report that found a root unhealthy, when Health is a later one and the root is still bad.
	Unhealthy *HealthReport `json:"unhealthy,omitempty"`
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
	facts, rec, err := a.look(ctx)
	if err != nil {
		return Status{}, err
	}
	st, err := a.openStore()
	if err != nil {
		return Status{}, err
	}
	s := Status{
		Phase: rec.Phase, Booted: rootStatus(st, rec, facts.Root), Bad: rec.Bad, Pinned: rec.Pinned, NotReached: rec.Failed,
		System: facts.State, Failed: facts.Failed, Last: rec.Last, Resume: rec.Resume, Health: a.lastReport(), Unhealthy: a.sickReport(rec),
	}
	s.Booted.Name = a.prettyName(st, facts.Root)
	if rec.Staged != "" {
		staged := rootStatus(st, rec, rec.Staged)
		s.Staged = &staged
	}
	for _, id := range slices.Backward(rec.Good) {
		s.Good = append(s.Good, rootStatus(st, rec, id))
	}
	s.Kernel.Release, s.Kernel.Version, s.Kernel.BuildID = facts.KernelRelease, facts.KernelVersion, facts.KernelBuildID
	s.Kernel.BootID, s.Kernel.SoftReboots = facts.BootID, facts.SoftReboots
	s.Kernel.BootedAt, s.Kernel.RebootBy = facts.KernelBooted, facts.RebootBy
	if s.Kernel.LivePatches, err = a.survey(ctx, facts, rec); err != nil {
		return s, err
	}
	if s.Fixes, err = a.coverage(ctx, st, facts, rec, facts.Root, rec.Staged, rec.good()); err != nil {
		return s, err
	}
	if a.Machine.Live() {
		s.Phase, s.Switch = a.underWayNow(facts, rec)
		if s.Phase == PhaseTrying && s.Switch != nil {
			s.Starting, err = health.PID1().Starting(ctx)
			s.Starting = slices.DeleteFunc(s.Starting, func(unit string) bool { return unit == pid1.ConfirmUnit })
		}
		if err != nil {
			return s, err
		}
		s.Armed, err = assembly.Armed()
	}
	return s, err
}

// underWayNow tells of the switch that the record is in, by what is mounted at /: none where it has failed and nobody has
// recorded that yet.
func (a *Agent) underWayNow(f facts.Facts, rec *Record) (Phase, *SwitchStatus) {
	if !rec.moving() {
		return rec.Phase, nil
	}
	sw, stamp := rec.Switch, readStamp(a.path(stampFile))
	s := &SwitchStatus{Verb: sw.Verb, From: sw.From, Target: sw.Target, Version: sw.Version, At: sw.At, Back: rec.wayBack()}
	outcome, _ := level.Prove(sw.Expectation, f, stamp)
	arrived := rec.Phase == PhaseTrying && f.Root == sw.Target || rec.Phase == PhaseArmed && outcome == level.Switched
	switch {
	case arrived && stamp != nil && stamp.At > 0:
		began := a.Now().UTC().Add(stamp.At - sinceBoot())
		s.Deadline = began.Add(time.Duration(a.Config.Health.Deadline)).Round(time.Second)
		return PhaseTrying, s
	case arrived:
		return PhaseTrying, s
	case rec.Phase == PhaseArmed && outcome == level.Pending:
		return PhaseArmed, s
	}
	return rec.Phase, nil
}

func rootStatus(st *store.Store, rec *Record, id string) RootStatus {
	s := RootStatus{Root: id, Sequence: rec.Accepted[id].Sequence}
	if root, err := st.Root(id); err == nil {
		s.Version, s.Name, s.Vouchers = cmp.Or(rec.Accepted[id].Version, root.Info.Version), root.Info.OS.PrettyName, root.Info.Vouchers
		s.VerifiedAt = root.Info.VerifiedAt
	}
	return s
}

// GC removes the roots that nothing needs, and their objects: kept are those that are booted, staged, good or pinned.
func (a *Agent) GC(ctx context.Context) (store.GCReport, error) {
	unlock, err := a.lock(ctx, "gc", false)
	if err != nil {
		return store.GCReport{}, err
	}
	defer unlock()
	st, facts, rec, err := a.begin(ctx)
	if err != nil && !errors.Is(err, ErrSwitch) {
		return store.GCReport{}, err
	}
	return a.gc(st, facts, rec)
}

func (a *Agent) gc(st *store.Store, f facts.Facts, rec *Record) (store.GCReport, error) {
	keep := rec.keep(f.Root)
	if a.Machine.Live() {
		modules, err := facts.ModulesFrom(f.KernelRelease)
		if err != nil {
			return store.GCReport{}, err
		}
		keep = append(keep, modules)
	}
	report, err := st.GC(keep)
	if err == nil && a.Machine.Live() {
		report.LivePatches, err = a.gcLive(st, f, keep)
	}
	for _, id := range report.Roots {
		a.tell(Event{Event: "collected", Root: id, Reason: "not booted, staged, good or pinned"})
	}
	a.tellCollected(report.LivePatches)
	known := len(rec.Accepted) + len(rec.Failed)
	maps.DeleteFunc(rec.Accepted, func(id string, _ release.Mark) bool { return !slices.Contains(keep, id) })
	maps.DeleteFunc(rec.Failed, func(id string, _ Failed) bool { return !slices.Contains(keep, id) })
	if err == nil && len(rec.Accepted)+len(rec.Failed) != known {
		err = a.writeRecord(rec)
	}
	return report, err
}

// collect is gc as part of something greater, which does not fail with it.
func (a *Agent) collect(f facts.Facts, rec *Record) {
	st, err := a.openStore()
	if err == nil {
		_, err = a.gc(st, f, rec)
	}
	if err != nil {
		a.Log.Warn("cannot remove roots that nothing needs", zap.Error(err))
	}
}

// Pinned is the answer of pin and unpin.
type Pinned struct {
	Root   string `json:"root"`
	Pinned bool   `json:"pinned"`
	// Changed tells that it was not so before.
	Changed bool `json:"changed"`
}

// Pin keeps a root from gc, or with pinned false gives it free. The beginning of an identity is enough.
func (a *Agent) Pin(ctx context.Context, id string, pinned bool) (Pinned, error) {
	unlock, err := a.lock(ctx, "pin", false)
	if err != nil {
		return Pinned{}, err
	}
	defer unlock()
	st, err := a.openStore()
	if err != nil {
		return Pinned{}, err
	}
	rec, err := a.readRecord()
	if err != nil {
		return Pinned{}, err
	}
	if id == switcher.HostRoot {
		return Pinned{}, fmt.Errorf("%w to pin: the mutable host is never removed", ErrNoRoot)
	}
	of := func(p string) bool { return id != "" && strings.HasPrefix(p, id) }
	if i := slices.IndexFunc(rec.Pinned, of); !pinned && i >= 0 && slices.IndexFunc(rec.Pinned[i+1:], of) < 0 {
		id = rec.Pinned[i] // also one that is not there any more
	} else {
		root, err := findRoot(st, id)
		if err != nil {
			return Pinned{}, err
		}
		id = root.ID
	}
	p := Pinned{Root: id, Pinned: pinned, Changed: slices.Contains(rec.Pinned, id) != pinned}
	if !p.Changed {
		return p, nil
	}
	rec.Pinned = slices.DeleteFunc(rec.Pinned, func(p string) bool { return p == id })
	if pinned {
		rec.Pinned = append(rec.Pinned, id)
	}
	return p, a.writeRecord(rec)
}
