package record

import (
	"fmt"
	"slices"
)

// Phase is how far the host has come on its way to another root.
type Phase string

// The phases. A phase is recorded before the act that it announces:
//
//	phase    what is recorded          what is done next           what undoes it
//	idle     the good roots            stage                       –
//	staged   the staged root           ask for the soft reboot     staging another
//	armed    what the switch expects   arm, soft reboot            disarm; back to staged
//	trying   the root at / is new      confirm                     roll back, automatically if it is unhealthy
//	good     the root is good          –                           roll back
//
// [Moves] lists all moves between them.
const (
	PhaseIdle   Phase = "idle"
	PhaseStaged Phase = "staged"
	PhaseArmed  Phase = "armed"
	PhaseTrying Phase = "trying"
	PhaseGood   Phase = "good"

	// phaseResting stands in the table for a host that is not on its way to another root: staged if a root is staged,
	// otherwise good.
	phaseResting Phase = ""
)

// Cause is what moves the record from one phase to the next.
type Cause string

// The causes.
const (
	CauseStaged    Cause = "staged"     // an image was written to the disk as a root
	CauseAsked     Cause = "asked"      // a person, a timer or a rollback is about to ask systemd for a switch
	CauseRefused   Cause = "refused"    // systemd or logind refused the switch
	CauseWithdrawn Cause = "withdrawn"  // the switch was never asked for, or its shutdown was cancelled
	CauseArrived   Cause = "arrived"    // the target is mounted at /
	CauseLate      Cause = "late"       // the switch was withdrawn, and yet its target is mounted at /
	CauseMissed    Cause = "missed"     // another root is: not armed, fell back, elsewhere, or an unplanned full reboot
	CauseLanded    Cause = "landed"     // the full reboot of a full switch landed on the host root, to go on from there
	CauseProved    Cause = "proved"     // the root is up and healthy
	CauseLeft      Cause = "left"       // the host left the root before it was good
	CauseUnhealthy Cause = "unhealthy"  // the root did not become good: roll back
	CauseStranded  Cause = "stranded"   // it did not become good, and there is no root to roll back to: stay
	CauseTakenOver Cause = "taken over" // the guard rolled back without the record, and left a note in /run
)

// Move is one line of the table of moves.
type Move struct {
	// From lists the phases in which the cause can happen.
	From []Phase
	On   Cause
	// To is the phase after the move; phaseResting stands for staged or good.
	To Phase
	// Records is what is written together with the phase, before anything is done; Undo is what takes it back.
	Records, Undo string
}

// restingPhases are the phases of a host that is not on its way to another root.
var restingPhases = []Phase{PhaseIdle, PhaseStaged, PhaseGood}

// Moves lists all moves of the record from one phase to another. A move that is not listed cannot happen.
var Moves = []Move{
	{restingPhases, CauseStaged, PhaseStaged, "the staged root", "staging another"},
	{append(slices.Clone(restingPhases), PhaseTrying), CauseAsked, PhaseArmed, "the switch, one more attempt", "disarm"},
	{[]Phase{PhaseArmed}, CauseRefused, phaseResting, "as before it was asked for", ""},
	{[]Phase{PhaseArmed}, CauseWithdrawn, phaseResting, "one attempt fewer", ""},
	{[]Phase{PhaseStaged, PhaseGood}, CauseLate, PhaseArmed, "together with the arrival", ""},
	{[]Phase{PhaseArmed}, CauseArrived, PhaseTrying, "where the host arrived", "roll back"},
	{[]Phase{PhaseArmed}, CauseMissed, phaseResting, "why; a root that systemd did not accept is bad", ""},
	{[]Phase{PhaseArmed}, CauseLanded, phaseResting, "that the host is halfway", ""},
	{[]Phase{PhaseTrying}, CauseProved, PhaseGood, "the root is good, no attempts", "roll back"},
	{[]Phase{PhaseTrying}, CauseLeft, phaseResting, "why; a root that was tried too often is bad", ""},
	{[]Phase{PhaseTrying}, CauseUnhealthy, PhaseArmed, "why, the root is bad, the switch back", ""},
	{[]Phase{PhaseTrying}, CauseStranded, phaseResting, "why", ""},
	{[]Phase{PhaseArmed, PhaseTrying}, CauseTakenOver, PhaseArmed, "why, the root is bad, the switch back", ""},
}

// Advance moves the record to its next phase. If the cause cannot happen in the current phase, it returns an error and
// leaves the record unchanged.
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
	return fmt.Errorf("cannot move the record from phase %s: no move for %q", r.Phase, c)
}

// Moving reports whether the host is on its way to another root.
func (r *Record) Moving() bool { return !slices.Contains(restingPhases, r.Phase) }

// restingPhase returns the phase of a host that is not on its way to another root; staged is the staged root, "" for
// none.
func restingPhase(staged string) Phase {
	if staged != "" {
		return PhaseStaged
	}
	return PhaseGood
}
