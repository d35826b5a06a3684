package schedule

import (
	"fmt"
	"strings"
	"time"
)

// Step is what an unattended update is about to do.
type Step string

const (
	// Fetch is to download and stage a root.
	Fetch Step = "fetch"
	// Switch is to switch to a staged root.
	Switch Step = "switch"
)

// Action is what an unattended update does now.
type Action string

const (
	// Go is to do the step now.
	Go Action = "go"
	// Wait is to ask again at a later time, which is known.
	Wait Action = "wait"
	// GiveUp is to end without the step. The next run begins anew.
	GiveUp Action = "give-up"
)

// Kind is why an unattended update does not go on, as the JSON output names it.
type Kind string

const (
	// KindPaused is a pause by a person.
	KindPaused Kind = "paused"
	// KindWindow is a window that is not open.
	KindWindow Kind = "window"
	// KindBattery is a host that runs on its battery.
	KindBattery Kind = "battery"
	// KindMetered is a link that is paid by what it carries.
	KindMetered Kind = "metered"
	// KindInhibitor is a program that asked systemd to delay a shutdown.
	KindInhibitor Kind = "inhibitor"
	// KindPeople is somebody who is logged in.
	KindPeople Kind = "people"
	// KindRollout is a release whose turn at this host has not come, or that is paused or stopped.
	KindRollout Kind = "rollout"
	// KindLock is a lock of the fleet that others hold.
	KindLock Kind = "lock"
	// KindHook is a program of the operator that said no.
	KindHook Kind = "hook"
)

// Kinds returns every kind.
func Kinds() []Kind {
	return []Kind{KindPaused, KindWindow, KindBattery, KindMetered, KindInhibitor, KindPeople, KindRollout, KindLock,
		KindHook}
}

// Recheck is how long to wait before a fact without a known end is looked at again.
const Recheck = 5 * time.Minute

// Pause is what a person asked for. The zero value is none.
type Pause struct {
	On bool
	// Until is zero for a pause without an end.
	Until      time.Time
	By, Reason string
}

// Inhibitor is a program that blocks a shutdown. The zero value is none.
type Inhibitor struct {
	Who, Why string
	// Deadline is until when an unattended update waits for it. Afterwards it gives up: it never overrides one.
	Deadline time.Time
}

// Facts are what a decision depends on.
type Facts struct {
	Step Step
	// Fetch and Switch are the windows of the two steps.
	Fetch, Switch Window
	Pause         Pause
	// Users are the people who are logged in.
	Users []string
	// Grace is how long before a switch they are told, 0 if they are not.
	Grace time.Duration
	// Told is when they were told, zero if not yet.
	Told      time.Time
	Inhibitor Inhibitor
	Metered   bool
	OnBattery bool
}

// Verdict is what to do, and why it is not [Go].
type Verdict struct {
	Action Action `json:"action"`
	Kind   Kind   `json:"reason,omitempty"`
	// Until is when to decide again: set for [Wait] only.
	Until time.Time `json:"until,omitzero"`
	Text  string    `json:"text,omitempty"`
	// Tell is set when the people who are logged in are to be told now that the switch follows at Until.
	Tell bool `json:"-"`
}

// Decide says whether a step may be done now. What a person said counts first, then the window, then what may pass, and
// people last: they are told only of a switch that nothing else delays.
func Decide(now time.Time, f Facts) Verdict {
	w := f.window()
	switch {
	case f.Pause.On && (f.Pause.Until.IsZero() || now.Before(f.Pause.Until)):
		return f.paused()
	case !w.Open:
		return later(KindWindow, w.Next, "the window to "+string(f.Step)+" is not open")
	case f.OnBattery:
		return w.recheck(now, KindBattery, "the host runs on its battery")
	case f.Metered && f.Step == Fetch:
		return w.recheck(now, KindMetered, "the network link is metered")
	case f.Inhibitor.Who != "" && f.Step == Switch:
		return f.inhibited(now)
	case len(f.Users) > 0 && f.Grace > 0 && f.Step == Switch:
		return f.withPeople(now)
	}
	return Verdict{Action: Go}
}

// window returns the window of the step.
func (f Facts) window() Window {
	if f.Step == Fetch {
		return f.Fetch
	}
	return f.Switch
}

// later waits until a time, or gives up if it is not known.
func later(kind Kind, until time.Time, text string) Verdict {
	if until.IsZero() {
		return Verdict{Action: GiveUp, Kind: kind, Text: text + ", and it is not known until when"}
	}
	return Verdict{Action: Wait, Kind: kind, Until: until, Text: text + ": waiting until " + until.Format(time.RFC3339)}
}

// recheck looks again after a while, or in the next window if this one closes before.
func (w Window) recheck(now time.Time, kind Kind, text string) Verdict {
	return w.within(kind, now.Add(Recheck), text)
}

// within waits until a time in the window, or for the next window if that time is not in it.
func (w Window) within(kind Kind, until time.Time, text string) Verdict {
	if !w.Until.IsZero() && !until.Before(w.Until) {
		return later(kind, w.Next, text+", and the window closes at "+w.Until.Format(time.RFC3339))
	}
	return later(kind, until, text)
}

func (f Facts) paused() Verdict {
	text := "updates are paused"
	if f.Pause.By != "" {
		text += " by " + f.Pause.By
	}
	if f.Pause.Reason != "" {
		text += " (" + f.Pause.Reason + ")"
	}
	return later(KindPaused, f.Pause.Until, text)
}

func (f Facts) inhibited(now time.Time) Verdict {
	text := fmt.Sprintf("%s blocks a shutdown", f.Inhibitor.Who)
	if f.Inhibitor.Why != "" {
		text += " (" + f.Inhibitor.Why + ")"
	}
	if !now.Before(f.Inhibitor.Deadline) {
		return Verdict{Action: GiveUp, Kind: KindInhibitor, Text: text + ", and was waited for long enough"}
	}
	until := now.Add(Recheck)
	if f.Inhibitor.Deadline.Before(until) {
		until = f.Inhibitor.Deadline
	}
	return f.window().within(KindInhibitor, until, text)
}

// withPeople gives those who are logged in their time, counted from when they were told.
func (f Facts) withPeople(now time.Time) Verdict {
	told := f.Told
	if told.IsZero() {
		told = now
	}
	end := told.Add(f.Grace)
	if !now.Before(end) {
		return Verdict{Action: Go}
	}
	v := f.window().within(KindPeople, end, people(f.Users)+" logged in")
	v.Tell = f.Told.IsZero() && v.Until.Equal(end)
	return v
}

// people lists users with a verb.
func people(users []string) string {
	if len(users) == 1 {
		return users[0] + " is"
	}
	return strings.Join(users[:len(users)-1], ", ") + " and " + users[len(users)-1] + " are"
}
