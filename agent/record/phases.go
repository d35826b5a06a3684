package record

import (
	"fmt"
	"slices"
)

// Phase is where the host stands on its way to another root.
type Phase string

// The phases. A transition names the phase it leaves and is written before the act it announces:
//
//	phase    what is recorded          what is done next           what undoes it
//	idle     the good roots            stage                       –
//	staged   the staged root           ask for the soft reboot     staging another
//	armed    what the switch expects   arm, soft reboot            disarm; back to staged
//	trying   the root at / is new      confirm                     roll back, by itself when it is not healthy
//	good     the root is good          –                           roll back
//
// [Moves] has every way between them.
const (
	PhaseIdle   Phase = "idle"
	PhaseStaged Phase = "staged"
	PhaseArmed  Phase = "armed"
	PhaseTrying Phase = "trying"
	PhaseGood   Phase = "good"

	// phaseResting stands in the table for a host that is on its way nowhere: staged when a root is staged, else good.
	phaseResting Phase = ""
)

// Cause is what moves the record from one phase to the next.
type Cause string

// The causes.
const (
	CauseStaged    Cause = "staged"     // an image was brought onto the disk
	CauseAsked     Cause = "asked"      // a switch is about to be asked for, by a person, a timer, or to go back
	CauseRefused   Cause = "refused"    // systemd or logind would not have it
	CauseWithdrawn Cause = "withdrawn"  // it was prepared and never asked for, or its shutdown was cancelled
	CauseArrived   Cause = "arrived"    // the root asked for is mounted at /
	CauseLate      Cause = "late"       // it was taken back, and the root asked for is mounted at / all the same
	CauseMissed    Cause = "missed"     // another one is: not armed, fell back, elsewhere, or the kernel was booted
	CauseLanded    Cause = "landed"     // the kernel was booted for a full switch, and the host has to go on from there
	CauseProved    Cause = "proved"     // the root is up and healthy
	CauseLeft      Cause = "left"       // the host left the root before it was good
	CauseUnhealthy Cause = "unhealthy"  // the root did not become good: go back
	CauseStranded  Cause = "stranded"   // it did not become good, and there is nowhere to go back to: stay
	CauseTakenOver Cause = "taken over" // the guard went back where nobody could write the record; it told so in /run
)

// Move is one line of the table of moves.
type Move struct {
	// From lists the phases that this can happen in.
	From []Phase
	On   Cause
	// To is the phase that is left behind, "" for staged where a root is staged and good where none is.
	To Phase
	// Records is what is written with it, before anything is done; Undo is what takes it back.
	Records, Undo string
}

// restingPhases are the phases of a host that is on its way nowhere.
var restingPhases = []Phase{PhaseIdle, PhaseStaged, PhaseGood}

// Moves is every way of the record from one phase to another; what is not here cannot happen.
var Moves = []Move{
	{restingPhases, CauseStaged, PhaseStaged, "the staged root", "staging another"},
	{append(slices.Clone(restingPhases), PhaseTrying), CauseAsked, PhaseArmed, "the switch, one attempt more", "disarm"},
	{[]Phase{PhaseArmed}, CauseRefused, phaseResting, "as before it was asked for", ""},
	{[]Phase{PhaseArmed}, CauseWithdrawn, phaseResting, "one attempt less", ""},
	{[]Phase{PhaseStaged, PhaseGood}, CauseLate, PhaseArmed, "with the arrival that comes next", ""},
	{[]Phase{PhaseArmed}, CauseArrived, PhaseTrying, "where the host arrived", "going back"},
	{[]Phase{PhaseArmed}, CauseMissed, phaseResting, "why; a root that systemd did not accept is bad", ""},
	{[]Phase{PhaseArmed}, CauseLanded, phaseResting, "that the host is half the way", ""},
	{[]Phase{PhaseTrying}, CauseProved, PhaseGood, "the root is good, no attempts", "roll back"},
	{[]Phase{PhaseTrying}, CauseLeft, phaseResting, "why; a root that was tried too often is bad", ""},
	{[]Phase{PhaseTrying}, CauseUnhealthy, PhaseArmed, "why, the root is bad, the switch back", ""},
	{[]Phase{PhaseTrying}, CauseStranded, phaseResting, "why", ""},
	{[]Phase{PhaseArmed, PhaseTrying}, CauseTakenOver, PhaseArmed, "why, the root is bad, the switch back", ""},
}

// Advance moves the record. A cause that the phase does not know is an error, and the record is as before.
func (r *Record) Advance(c Cause) error {
	for _, m := range Moves {
		if m.On != c || !slices.Contains(m.From, r.Phase) {
			continue
		}
		if r.Phase = m.To; r.Phase == phaseResting {
			r.Phase = restingPhase(r.Staged)
		}
		return nil
	}
	return fmt.Errorf("cannot go on from phase %s: %q cannot happen in it", r.Phase, c)
}

// Moving tells whether the host is on its way to another root.
func (r *Record) Moving() bool { return !slices.Contains(restingPhases, r.Phase) }

// restingPhase returns the phase of a host that is on its way nowhere, by the root that is staged.
func restingPhase(staged string) Phase {
	if staged != "" {
		return PhaseStaged
	}
	return PhaseGood
}
