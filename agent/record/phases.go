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
}

// restingPhases are the phases of a host that is not on its way to another root.
var restingPhases = []Phase{PhaseIdle, PhaseStaged, PhaseGood}

// Moves lists all moves of the record from one phase to another. A move that is not listed cannot happen.
var Moves = []Move{
	{restingPhases, CauseStaged, PhaseStaged},
	{append(slices.Clone(restingPhases), PhaseTrying), CauseAsked, PhaseArmed},
	{[]Phase{PhaseArmed}, CauseWithdrawn, phaseResting},
	{[]Phase{PhaseStaged, PhaseGood}, CauseLate, PhaseArmed},
	{[]Phase{PhaseArmed}, CauseArrived, PhaseTrying},
	{[]Phase{PhaseArmed}, CauseMissed, phaseResting},
	{[]Phase{PhaseArmed}, CauseLanded, phaseResting},
	{[]Phase{PhaseTrying}, CauseProved, PhaseGood},
	{[]Phase{PhaseTrying}, CauseLeft, phaseResting},
	{[]Phase{PhaseTrying}, CauseUnhealthy, PhaseArmed},
	{[]Phase{PhaseTrying}, CauseStranded, phaseResting},
	{[]Phase{PhaseArmed, PhaseTrying}, CauseTakenOver, PhaseArmed},
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
