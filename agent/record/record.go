// Package record keeps what has happened to this host: the record, by which a host finds back after a crash at any moment,
// and the history for people. What is mounted at / is the truth; the record is a note.
package record

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/health"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
)

// Held is why a live patch is not loaded automatically any more.
type Held struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Loading is the live patch that is being loaded: whoever finds it after another boot knows what the host went down
// with.
type Loading struct {
	Name   string `json:"name"`
	BootID string `json:"boot_id"`
}

const recordSchema = "updatectl.record/v1"

// Record is what the agent remembers between commands and boots: /var/lib/updatectl/state.json.
type Record struct {
	Schema string `json:"schema"`
	Phase  Phase  `json:"phase"`
	// Staged is the root that apply would switch to, "" for none.
	Staged string `json:"staged,omitempty"`
	// Switch is the switch under way, or the last one.
	Switch *Switch `json:"switch,omitempty"`
	// Good lists the roots that proved good, the latest last. The mutable host is the first.
	Good []string `json:"good"`
	// Bad tells which roots are not tried again by themselves, and why.
	Bad map[string]Bad `json:"bad,omitempty"`
	// Pinned roots are kept by gc.
	Pinned []string `json:"pinned,omitempty"`
	// Last is how the last switch ended.
	Last *Result `json:"last,omitempty"`
	// Mark is the last release that was accepted: what comes before it is not taken. It is written before the release
	// is fetched, so that nobody can offer an older one in the meantime.
	Mark release.Mark `json:"mark,omitzero"`
	// Seen is the latest time at which a release was accepted or, as proven, signed. A clock that shows less went backwards. It is never
	// later than the expiry of a release that was signed, however wrong the clock was.
	Seen time.Time `json:"seen,omitzero"`
	// Accepted tells as which release each root was accepted.
	Accepted map[string]release.Mark `json:"accepted,omitempty"`
	// Attempts counts how often the host set out for a root that has not been good since: loops end by it.
	Attempts map[string]int `json:"attempts,omitempty"`
	// Failed counts the switches to each root that ended before it ran: no timer stops the services for one for ever.
	Failed map[string]Failed `json:"failed_switches,omitempty"`
	// Resume counts the boots of the kernel after which the host set out for its last good root and did not get there.
	Resume *Resume `json:"resume,omitempty"`
	// State is what the last good root had from the host, for when the configuration cannot be read.
	State *config.State `json:"state,omitempty"`
	// Held tells which live patches are not loaded by themselves, by name; Loading is the one that is being loaded.
	Held    map[string]Held `json:"held_live_patches,omitempty"`
	Loading *Loading        `json:"loading_live_patch,omitempty"`

	rest unknownMembers // what a newer agent keeps there
}

// Failed is how often a root could not be switched to, and why the last time.
type Failed struct {
	Times  int    `json:"times"`
	Reason string `json:"reason"`
}

// Resume is what became of going on, after a boot of the kernel, to the last good root.
type Resume struct {
	Root     string `json:"root"`
	Attempts int    `json:"attempts"`
}

// MaxAttempts is how often a root is gone to without becoming good before the host stops trying by itself: once may be
// a power cut, twice is the root.
const MaxAttempts = 2

// Switch is one move between roots.
type Switch struct {
	level.Expectation
	// Verb is apply, rollback, resume or back; only apply makes a new /etc.
	Verb string `json:"verb"`
	// Version is the version of the target, for people.
	Version string    `json:"version,omitempty"`
	At      time.Time `json:"at"`
	// Back is the root to go back to when the target does not become good, where that is not the one it came from.
	Back string `json:"back,omitempty"`
	// Named: the operator named the target of a way back, and so it becomes the last good root.
	Named bool `json:"named,omitempty"`
	// Deadline is when the target has to be good, by the clock of the root that was left. It is for people: whoever acts
	// on it measures the time that passes.
	Deadline time.Time `json:"deadline,omitzero"`
	// Before is what the target's health is compared with.
	Before health.Before `json:"before,omitzero"`

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
	// RolledBack: it may well be healthy, the operator left it.
	RolledBack bool `json:"rolled_back,omitempty"`
}

// WhenAndWhy tells when and why a root was given up.
func (b Bad) WhenAndWhy() string {
	return fmt.Sprintf("on %s: %s", b.At.Format("2006-01-02 15:04"), b.Reason)
}

// Err is what a person who asks for it is told.
func (b Bad) Err() error { return fmt.Errorf("%w %s", ErrGivenUp, b.WhenAndWhy()) }

// Result is how a switch ended.
type Result struct {
	Outcome level.Outcome `json:"outcome"`
	Reason  string        `json:"reason"`
	Target  string        `json:"target"`
	At      time.Time     `json:"at"`
	// Back is the root that the host went back to by itself, "" when it did not.
	Back string `json:"back,omitempty"`
}

// LastGood is the root that a failed switch goes back to.
func (r *Record) LastGood() string { return r.Good[len(r.Good)-1] }

// keepGood is how many good images are remembered besides the host: the running one and the one before it.
const keepGood = 2

// MarkGood makes root the latest good one.
func (r *Record) MarkGood(root string) {
	if i := slices.Index(r.Good, root); i >= 0 {
		// Going back: what came after it is no longer on the way.
		r.Good = r.Good[:i+1]
		return
	}
	r.Good = append(r.Good, root)
	if extra := len(r.Good) - 1 - keepGood; extra > 0 && r.Good[0] == switcher.HostRoot {
		r.Good = slices.Delete(r.Good, 1, 1+extra)
	}
}

// WayBack is the root to go to when the one that the switch went to does not become good: the one it came from where
// that is good, else the latest that is. "" says to stay: going back is not gone back from, so that a fault of the
// machine, which every root would show, does not send the host around.
func (r *Record) WayBack() string {
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

// MayFullReboot tells whether the kernel may be booted because the root that was gone back to is not healthy: once for each
// image that is given up, and never where such a boot, or another one, is what the host comes from.
func (r *Record) MayFullReboot() bool { return r.Switch.Verb == VerbBack && r.Resume == nil }

// MarkBad records that a root did not become good. It is not taken again by itself. One that was good before stays a root
// to go back to, and one that a boot of the kernel or the operator went on to is not given up: only the attempt to resume
// it is counted.
func (r *Record) MarkBad(root string, b Bad) {
	wasGood := r.Switch.Verb == VerbRollback && slices.Contains(r.Good, root)
	if root == switcher.HostRoot || wasGood || r.Switch.Verb == VerbResume || r.Switch.Verb == VerbBack {
		return
	}
	r.Bad[root] = b
	delete(r.Attempts, root) // whoever takes it all the same begins anew
}

// ArrivedLate tells whether a root runs that nobody has judged: its switch was taken back, and systemd made it all the same.
func (r *Record) ArrivedLate(root string) bool {
	return !r.Moving() && r.Switch != nil && r.Switch.Target == root && root != switcher.HostRoot && !slices.Contains(r.Good, root)
}

// SetOut records a switch that is about to be asked for.
func (r *Record) SetOut(s Switch) error {
	if err := r.Advance(CauseAsked); err != nil {
		return err
	}
	r.Switch = &s
	r.Attempts[s.Target]++
	if s.Verb == VerbResume {
		r.Resume = &Resume{Root: s.Target, Attempts: r.ResumeAttempts(s.Target) + 1}
	}
	return nil
}

// ResumeAttempts is how often the host set out to resume a root and did not get there.
func (r *Record) ResumeAttempts(root string) int {
	if r.Resume == nil || r.Resume.Root != root {
		return 0
	}
	return r.Resume.Attempts
}

// Retreat records that the root which the host set out for did not become good, and the switch back that is about to be
// asked for.
func (r *Record) Retreat(c Cause, s Switch, d Departure) error {
	if r.ArrivedLate(r.Switch.Target) {
		if err := r.Advance(CauseLate); err != nil {
			return err
		}
	}
	if err := r.Advance(c); err != nil {
		return err
	}
	bad := r.Switch.Target
	r.MarkBad(bad, Bad{Reason: d.Reason, At: s.At, RolledBack: d.RolledBack})
	outcome := level.Unhealthy
	if d.RolledBack { // nobody knows whether it was healthy
		outcome = level.RolledBack
	}
	r.Last = &Result{Outcome: outcome, Reason: d.Reason, Target: bad, At: s.At, Back: s.Target}
	r.Switch = &s
	return nil
}

// RollbackTarget is the root that rollback goes to from the one that runs; "" when there is none.
func (r *Record) RollbackTarget(running string) string {
	i := slices.Index(r.Good, running)
	switch {
	case i < 0: // not confirmed
		return r.LastGood()
	case i == 0 && r.LastGood() != running: // a boot of the kernel landed on the host
		return r.LastGood()
	case i == 0:
		return ""
	}
	return r.Good[i-1]
}

// Needed lists the roots that gc must not touch.
func (r *Record) Needed(running string) []string {
	roots := slices.Concat(r.Good, r.Pinned, []string{running, r.Staged})
	if r.Switch != nil && (r.Phase == PhaseArmed || r.Phase == PhaseTrying) {
		roots = append(roots, r.Switch.From, r.Switch.Target, r.Switch.Back)
	}
	slices.Sort(roots)
	roots = slices.Compact(roots)
	return slices.DeleteFunc(roots, func(id string) bool { return id == "" || id == switcher.HostRoot })
}

// Clone is a copy that shares nothing with the record.
func (r *Record) Clone() (*Record, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	c := &Record{}
	return c, parseRecord(text, c)
}
