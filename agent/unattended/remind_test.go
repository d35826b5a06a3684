package unattended

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/attempt"
	"github.com/updatectl/updatectl/agent/event/eventtest"
	"github.com/updatectl/updatectl/switcher/facts"
)

func TestReminder(t *testing.T) {
	due := time.Date(2027, 3, 20, 4, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		due, before, now time.Time
		days             int
		is               bool
	}{
		"no limit":              {time.Time{}, time.Time{}, due, 0, false},
		"a long time":           {due, time.Time{}, due.Add(-14 * day), 14, false},
		"the first day":         {due, due.Add(-14 * day), due.Add(-14*day + time.Minute), 13, true},
		"once a day":            {due, due.Add(-14*day + time.Minute), due.Add(-14*day + 16*time.Minute), 13, false},
		"the first run":         {due, time.Time{}, due.Add(-3 * day), 3, true},
		"the last day":          {due, due.Add(-day), due.Add(-time.Hour), 0, true},
		"overdue":               {due, due.Add(-time.Hour), due.Add(time.Hour), 0, true},
		"overdue, said today":   {due, due.Add(time.Hour), due.Add(2 * time.Hour), 0, false},
		"overdue, the next day": {due, due.Add(23 * time.Hour), due.Add(25 * time.Hour), 0, true},
	} {
		if days, is := reminder(c.due, c.before, c.now); is != c.is || is && days != c.days {
			t.Errorf("%s: %d days, %v; want %d, %v", name, days, is, c.days, c.is)
		}
	}
}

// TestReminders: over the last month before it is due, runs every quarter of an hour remind once on each of 14 days.
func TestReminders(t *testing.T) {
	r, w := newRunner(t)
	log, events := eventtest.Log(t)
	r.Agent = agent.On(r.Machine, r.Config, log)
	due := w.now.AddDate(0, 0, 30)
	for ; w.now.Before(due); w.now = w.now.Add(15 * time.Minute) {
		r.remind(facts.Facts{RebootBy: due, KernelRelease: "6.12"})
		attempt.Keep(r.Host, attempt.Attempt{})
	}
	var want []string
	for days := reminderDays - 1; days >= 0; days-- {
		want = append(want, fmt.Sprintf("full-reboot-due %d %s 6.12", days, due.Format(time.DateOnly)))
	}
	if got := events(); !slices.Equal(got, want) {
		t.Errorf("the events are %q, want %q", got, want)
	}
}
