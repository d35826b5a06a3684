package report

import (
	"fmt"
	"io"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/fleetlock"
	"github.com/updatectl/updatectl/agent/pause"
)

// minute is how times are written that people plan by.
const minute = "2006-01-02 15:04 MST"

// Paused writes a pause that was set.
func Paused(w io.Writer, p pause.Pause) {
	if p.Until.IsZero() {
		fmt.Fprintln(w, "Updates are paused until `updatectl unpause`.")
		return
	}
	fmt.Fprintf(w, "Updates are paused until %s.\n", p.Until.Local().Format(minute))
}

// Unpaused writes which pause ended; nil stands for none.
func Unpaused(w io.Writer, was *pause.Pause) {
	if was == nil {
		fmt.Fprintln(w, "Updates were not paused.")
		return
	}
	fmt.Fprintln(w, "Updates are no longer paused.")
}

// pauseText returns a pause for status.
func pauseText(p pause.Pause) string {
	text := "since " + p.At.Local().Format(minute)
	if !p.Until.IsZero() {
		text += " until " + p.Until.Local().Format(minute)
	}
	if p.By != "" {
		text += " by " + p.By
	}
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

// Slot writes the slot of the lock server that the host holds, or that it gave back; nil stands for none.
func Slot(w io.Writer, s *fleetlock.Slot, given bool) {
	switch {
	case s == nil:
		fmt.Fprintln(w, "This host holds no slot.")
	case given:
		fmt.Fprintf(w, "The slot of the group %s is given back.\n", s.Group)
	default:
		fmt.Fprintf(w, "Slot\t%s\n", slotText(*s))
		fmt.Fprintf(w, "Server\t%s\nId\t%s\n", s.URL, s.ID)
	}
}

// slotText returns a slot for status.
func slotText(s fleetlock.Slot) string {
	text := fmt.Sprintf("of the group %s, since %s", s.Group, s.Since.Local().Format(minute))
	switch {
	case s.Failed != "":
		text += "; kept, so that no other host follows: " + s.Failed + "; `updatectl slot give-back` gives it back"
	case s.Wants == fleetlock.GiveBack:
		text += "; it is being given back"
	}
	return text
}

// fleetText writes what the host waits for, and what it holds of what its fleet shares.
func fleetText(w io.Writer, s agent.Status) {
	if s.Paused != nil {
		fmt.Fprintf(w, "Paused\t%s\n", pauseText(*s.Paused))
	}
	if s.Slot != nil {
		fmt.Fprintf(w, "Slot\t%s\n", slotText(*s.Slot))
	}
	a := s.Unattended
	if a == nil {
		return
	}
	text := "nothing to do"
	if a.Reason != "" {
		text = a.Text
	}
	fmt.Fprintf(w, "Unattended\t%s: %s\n", a.At.Local().Format(minute), text)
	if !a.Checked.IsZero() && a.At.Sub(a.Checked) > time.Minute {
		fmt.Fprintf(w, "\tthe source last answered %s\n", a.Checked.Local().Format(minute))
	}
}
