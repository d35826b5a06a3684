// Package schedule answers when an unattended update may fetch, and when it may switch. The start times of windows come
// from systemd's calendar expressions; everything else is a pure function of the time and of facts about the host, so
// that no process has to wait for anything.
package schedule

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// MinLength is the shortest window: the timer looks every quarter of an hour.
	MinLength = 30 * time.Minute
	// MaxLength is the longest window.
	MaxLength = 7 * 24 * time.Hour
	// maxStarts bounds how many starts of one expression are looked at.
	maxStarts = 64
)

// Calendar is when windows open and how long they stay open.
type Calendar struct {
	// Starts are calendar expressions of systemd, as in OnCalendar=. Without any, the window is always open.
	Starts []string
	// Zone is the time zone of the expressions that name none: "Europe/Berlin", or "" for the host's.
	Zone string
	// Length is elapsed time: a window of two hours takes two hours on the day on which the clock changes, too.
	Length time.Duration
	// Spread is which part of the first half of each window passes before it opens for this host, from 0 to 1: the hosts
	// of a fleet do not begin together.
	Spread float64
}

// Window is a window at one moment. The zero value is a window that never opens.
type Window struct {
	Open bool
	// Until is when the open window closes, at the earliest. It is zero if it is always open, or is not open.
	Until time.Time
	// Next is when the next window opens, zero if that is not known.
	Next time.Time
}

// Always is the window that does not close.
var Always = Window{Open: true}

// Hour returns when the present hour of a host began. Part, from 0 to less than 1, is the host's own: the hours of the
// hosts of a fleet begin at different times.
func Hour(now time.Time, part float64) time.Time {
	shift := time.Duration(part * float64(time.Hour))
	return now.UTC().Add(-shift).Truncate(time.Hour).Add(shift)
}

// Check returns an error if systemd does not understand one of the expressions, or if the zone or the length is wrong.
func (c Calendar) Check(ctx context.Context, analyze Analyze) error {
	for _, expr := range c.Starts {
		if err := Valid(ctx, analyze, expr, c.Zone); err != nil {
			return err
		}
	}
	if len(c.Starts) > 0 && (c.Length < MinLength || c.Length > MaxLength) {
		return fmt.Errorf("a window of %v is not between %v and %v long", c.Length, MinLength, MaxLength)
	}
	return nil
}

// At returns the window at a time.
func (c Calendar) At(ctx context.Context, analyze Analyze, now time.Time) (Window, error) {
	if len(c.Starts) == 0 {
		return Always, nil
	}
	late := time.Duration(c.Spread * float64(c.Length) / 2).Truncate(time.Second)
	var starts []time.Time
	for _, expr := range c.Starts {
		list, err := Starts(ctx, analyze, expr, c.Zone, now.Add(-c.Length), maxStarts)
		if err != nil {
			return Window{}, err
		}
		for _, start := range list {
			starts = append(starts, start.Add(late))
		}
	}
	open, until, next := State(starts, c.Length-late, now)
	return Window{open, until, next}, nil
}

// State says whether a window is open, until when at least if it is, and when the next one opens. Windows that overlap
// or touch are one. The starts may be in any order, and must include those since now minus the length. The times are
// zero if there is none.
func State(starts []time.Time, length time.Duration, now time.Time) (open bool, until, next time.Time) {
	sorted := slices.SortedFunc(slices.Values(starts), time.Time.Compare)
	for _, start := range sorted {
		end := start.Add(length)
		switch {
		case !end.After(now):
		case !start.After(now), open && !start.After(until):
			open, until = true, end
		default:
			return open, until, start
		}
	}
	return open, until, time.Time{}
}
