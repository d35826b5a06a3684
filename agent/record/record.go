// Package record keeps what has happened to this host: the record, from which a host recovers after a crash at any
// moment, and the history for people. It promises that a record which was written survives a power cut whole. What is
// mounted at / is the truth; the record is a note.
package record

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/kept"
	"github.com/updatectl/updatectl/switcher/level"
)

// Held is why and since when a live patch is no longer loaded automatically.
type Held struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Loading is the live patch that is being loaded. If it is still recorded in a later boot, the host went down while
// loading it.
type Loading struct {
	Name   string `json:"name"`
	BootID string `json:"boot_id"`
}

const recordSchema = "updatectl.record/v1"

// Record is what the agent remembers between commands and boots, in /var/lib/updatectl/state.json.
type Record struct {
	Schema string `json:"schema"`
	Phase  Phase  `json:"phase"`
	// Staged is the root that apply would switch to, "" for none.
	Staged string `json:"staged,omitempty"`
	// Switch is the switch under way, or the last one.
	Switch *Switch `json:"switch,omitempty"`
	// Good lists the good roots, the latest last. The host root is the first.
	Good []string `json:"good"`
	// Bad lists the roots that are not tried again automatically, and why.
	Bad map[string]Bad `json:"bad,omitempty"`
	// Pinned roots are kept by gc.
	Pinned []string `json:"pinned,omitempty"`
	// Last is how the last switch ended.
	Last *Result `json:"last,omitempty"`
	// Mark is the last release that was accepted; an older one is refused. It is written before the release is fetched,
	// so that nobody can offer an older one in the meantime.
	Mark release.Mark `json:"mark,omitzero"`
	// Marks are the releases that were accepted with who vouched for them, the latest last: Mark falls back to an earlier
	// one when its signers no longer count.
	Marks []Vouched `json:"marks,omitempty"`
	// Seen is the latest time at which a release was accepted or provably signed. A clock that shows an earlier time went
	// backwards. However wrong the clock was, Seen is never later than the expiry of a release that was signed.
	Seen time.Time `json:"seen,omitzero"`
	// Accepted has the release that each root was accepted as, by the root's identity.
	Accepted map[string]release.Mark `json:"accepted,omitempty"`
	// Attempts counts the switches to each root since it was last good; [MaxAttempts] ends loops.
	Attempts map[string]int `json:"attempts,omitempty"`
	// Failed counts the switches to each root that failed before it ran, so that a timer does not stop the services for
	// it again and again.
	Failed  map[string]Failed `json:"failed_switches,omitempty"`
	Healthy string            `json:"healthy_volatile,omitempty"` // the volatile root that was found healthy last
	// Resume counts the full reboots after which the host could not resume its last good root.
	Resume *Resume `json:"resume,omitempty"`
	// WhenGood has what each good root was like when it was last seen to be good.
	WhenGood States `json:"when_good,omitempty"`
	// State is the [state] table of the last good root, for when the configuration cannot be read.
	State *config.State `json:"state,omitempty"`
	// Held has the live patches that are not loaded automatically, by name; Loading is the one that is being loaded.
	Held    map[string]Held `json:"held_live_patches,omitempty"`
	Loading *Loading        `json:"loading_live_patch,omitempty"`
	// Losses has what a person has accepted to lose, by the kind of the loss.
	Losses map[LossKind][]string `json:"accepted_losses,omitempty"`
	// Accepting lists the kinds of losses that the person accepts by this command.
	Accepting []LossKind `json:"-"`

	rest unknownMembers // fields of a newer agent
}

// Failed is how often switches to a root failed before it ran, and why the last one did.
type Failed struct {
	Times  int    `json:"times"`
	Reason string `json:"reason"`
}

// Resume is how often the host tried to resume its last good root after a full reboot, without success.
type Resume struct {
	Root     string `json:"root"`
	Attempts int    `json:"attempts"`
}

// MaxAttempts is how many attempts a root has to become good before the host stops trying automatically. One failure
// may be a power cut; two are the root's fault.
const MaxAttempts = 2

// Switch is one move between roots.
type Switch struct {
	level.Expectation
	// Verb is apply, rollback, resume or back; only apply makes a new /etc.
	Verb string `json:"verb"`
	// Version is the version of the target, for people.
	Version string    `json:"version,omitempty"`
	At      time.Time `json:"at"`
	// Back is the root to roll back to if the target does not become good, "" for the root that the switch left.
	Back string `json:"back,omitempty"`
	// Named reports whether the operator named the target, a root that was here. Rolled back to, it is the last good one.
	Named bool `json:"named,omitempty"`
	// State lists the state paths that lay on storage of their own when the switch was announced.
	State []string `json:"state,omitempty"`
	// Kept is where the state lay then.
	Kept []kept.Dir `json:"kept,omitempty"`
	// Units are the units that are handed over to the target.
	Units    []keep.Kept `json:"units,omitempty"`
	Volatile bool        `json:"volatile,omitempty"` // it runs on a throw-away copy of the state
	// Before is the health of the root that was left, for comparison with the target's.
	Before health.Before `json:"before,omitzero"`
	// Steps were done for the switch before it was announced.
	Steps []outage.Step `json:"steps,omitempty"`

	rest unknownMembers
}

// The verbs of a switch.
const (
	VerbApply    = "apply"
	VerbRollback = "rollback"
	VerbResume   = "resume"
	VerbBack     = "back"
)

// Bad is why a root is not tried again.
type Bad struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	// RolledBack reports whether the operator left the root, which may well be healthy.
	RolledBack bool `json:"rolled_back,omitempty"`
}

// WhenAndWhy returns when and why a root was given up, as "marked bad at DATE UTC: REASON".
func (b Bad) WhenAndWhy() string {
	return fmt.Sprintf("marked bad at %s UTC: %s", b.At.UTC().Format("2006-01-02 15:04"), b.Reason)
}

// Err returns an [ErrGivenUp] with when and why, for a command that asks for the root.
func (b Bad) Err() error { return fmt.Errorf("%w: %s", ErrGivenUp, b.WhenAndWhy()) }

// Result is how a switch ended.
type Result struct {
	Outcome level.Outcome `json:"outcome"`
	Reason  string        `json:"reason"`
	Target  string        `json:"target"`
	At      time.Time     `json:"at"`
	// Back is the root that the host rolled back to, "" if it did not.
	Back string `json:"back,omitempty"`
}

// LastGood returns the identity of the latest good root.
func (r *Record) LastGood() string { return r.Good[len(r.Good)-1] }

// keepGood is how many good images the record keeps besides the host root: the running one and the one before it.
const keepGood = 2

// MarkGood makes root the latest good one.
func (r *Record) MarkGood(root string) {
	if i := slices.Index(r.Good, root); i >= 0 {
		// The host rolled back: it does not roll back to a later root from here.
		r.Good = r.Good[:i+1]
		return
	}
	r.Good = append(r.Good, root)
	if extra := len(r.Good) - 1 - keepGood; extra > 0 && r.Good[0] == switcher.HostRoot {
		r.Good = slices.Delete(r.Good, 1, 1+extra)
	}
}

// RollbackTarget returns the root to roll back to if the target of the switch does not become good: the root that was
// left, or the latest other good root if that one is not good. It returns "" if the host has to stay: a rollback is
// never rolled back, because a hardware fault, which shows in every root, must not bounce the host.
func (r *Record) RollbackTarget() string {
	if r.Switch.Verb == VerbBack {
		return ""
	}
	from := cmp.Or(r.Switch.Back, r.Switch.From)
	if from != r.Switch.Target && slices.Contains(r.Good, from) {
		return from
	}
	for _, id := range slices.Backward(r.Good) {
		if id != r.Switch.Target {
			return id
		}
	}
	return ""
}

// MayFullReboot reports whether the host may do a full reboot because the root that it rolled back to is unhealthy,
// too: once for each image that is given up, and never if the host has just resumed after a full reboot.
func (r *Record) MayFullReboot() bool { return r.Switch.Verb == VerbBack && r.Resume == nil }

// MarkBad records that a root did not become good, so that it is not tried again automatically. It does nothing for the
// host root, a good root that the operator rolled back to, a volatile one that the operator left, and the target of a
// resume or an automatic rollback.
func (r *Record) MarkBad(root string, b Bad) {
	wasGood := r.Switch.Verb == VerbRollback && slices.Contains(r.Good, root)
	if root == switcher.HostRoot || wasGood || r.Switch.Verb == VerbResume || r.Switch.Verb == VerbBack ||
		r.Switch.Volatile && b.RolledBack {
		return
	}
	r.Bad[root] = b
	delete(r.Attempts, root) // apply --retry starts counting anew
}

// maxFailedUnits bounds how many failed units are remembered for each good root. A root with more is broken.
const maxFailedUnits = 64

// States has what good roots are like.
type States map[string]health.State

// With returns a copy with what a root is like, and without the roots that are not good. An uplink that is down now is
// not forgotten: it may be the network that is down.
func (all States) With(root string, s health.State, good []string) States {
	if len(s.Uplinks) == 0 {
		s.Uplinks = all[root].Uplinks
	}
	s.Failed = slices.Clone(s.Failed[:min(len(s.Failed), maxFailedUnits)])
	known := States{}
	maps.Copy(known, all)
	known[root] = s
	maps.DeleteFunc(known, func(id string, _ health.State) bool { return !slices.Contains(good, id) })
	return known
}

// CompareWith returns what the target of the switch is compared with: what was observed before the switch, and what
// the target was like when it was last good. The network of a root that was left by a full reboot is that of the root,
// not that of the host root, from where it is resumed.
func (s *Switch) CompareWith(whenGood States) health.Before {
	before, known := s.Before, whenGood[s.Target]
	before.FailedWhenGood = slices.Concat(known.Failed, before.Repaired)
	if s.Verb == VerbResume {
		before.Uplinks = known.Uplinks
	}
	return before
}

// ArrivedLate reports whether the running root was never judged: its switch was withdrawn, and systemd made it anyway.
func (r *Record) ArrivedLate(root string) bool {
	return !r.Moving() && r.Switch != nil && r.Switch.Target == root && root != switcher.HostRoot &&
		!slices.Contains(r.Good, root) && !(r.Switch.Volatile && r.Healthy == root)
}

// BeginSwitch records a switch that is about to be asked for, and counts the attempt. The error says that another
// switch is armed already.
func (r *Record) BeginSwitch(s Switch) error {
	if err := r.Advance(CauseAsked); err != nil {
		return err
	}
	if !s.Before.Unknown && slices.Contains(r.Good, s.From) && !r.Switch.wasTrialOf(s.From) {
		s.Before.Repaired = slices.DeleteFunc(slices.Clone(r.WhenGood[s.From].Failed), func(u string) bool {
			return slices.Contains(s.Before.Failed, u)
		})
		r.WhenGood = r.WhenGood.With(s.From, health.State{Failed: s.Before.Failed, Uplinks: s.Before.Uplinks}, r.Good)
	}
	if r.Switch = &s; s.Target == r.Healthy {
		r.Healthy = ""
	}
	r.Attempts[s.Target]++
	if s.Verb == VerbResume {
		r.Resume = &Resume{Root: s.Target, Attempts: r.ResumeAttempts(s.Target) + 1}
	}
	return nil
}

// ResumeAttempts returns how often the host tried to resume a root without success.
func (r *Record) ResumeAttempts(root string) int {
	if r.Resume == nil || r.Resume.Root != root {
		return 0
	}
	return r.Resume.Attempts
}

// BeginRollback records that the target of the switch did not become good, and s, the switch back that is about to be
// asked for. The error says that the cause cannot happen in the phase of the record.
func (r *Record) BeginRollback(c Cause, s Switch, d Departure) error {
	if r.ArrivedLate(r.Switch.Target) {
		if err := r.Advance(CauseLate); err != nil {
			return err
		}
	}
	if err := r.Advance(c); err != nil {
		return err
	}
	r.MarkBad(r.Switch.Target, Bad{Reason: d.Reason, At: s.At, RolledBack: d.RolledBack})
	outcome := level.Unhealthy
	if d.RolledBack { // nobody checked whether the root was healthy
		outcome = level.RolledBack
	}
	r.Last = &Result{Outcome: outcome, Reason: d.Reason, Target: r.Switch.Target, At: s.At, Back: s.Target}
	r.Switch = &s
	return nil
}

// PreviousGood returns the root that rollback goes to from the running one, "" if there is none.
func (r *Record) PreviousGood(running string) string {
	i := slices.Index(r.Good, running)
	switch {
	case i < 0, r.Switch.wasTrialOf(running), // not confirmed, or volatile
		i == 0 && r.LastGood() != running: // a full reboot landed on the host root
		return r.LastGood()
	case i == 0:
		return ""
	}
	return r.Good[i-1]
}

// Needed returns the roots that gc must not touch, sorted, without the host root.
func (r *Record) Needed(running string) []string {
	roots := slices.Concat(r.Good, r.Pinned, []string{running, r.Staged})
	landed := r.Last != nil && r.Last.Outcome == level.Landed // the switch is half done
	if r.Switch != nil && (landed || r.Phase == PhaseArmed || r.Phase == PhaseTrying) {
		roots = append(roots, r.Switch.From, r.Switch.Target, r.Switch.Back)
	}
	slices.Sort(roots)
	roots = slices.Compact(roots)
	return slices.DeleteFunc(roots, func(id string) bool { return id == "" || id == switcher.HostRoot })
}

// Clone returns a copy that shares nothing with the record.
func (r *Record) Clone() (*Record, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	c := &Record{}
	return c, parseRecord(text, c)
}
