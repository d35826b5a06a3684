package unattended

import (
	"math"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/attempt"
	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/switcher/facts"
)

// reminderDays is how many days before a full reboot is due the first reminder comes: time to plan one.
const reminderDays = 14

// remind logs once a day how long it takes until a full reboot is due because of the age of the kernel.
func (r *Runner) remind(f facts.Facts) {
	var before time.Time
	if last := attempt.Last(r.Host); last != nil {
		before = last.At
	}
	if days, is := reminder(f.RebootBy, before, r.Now()); is {
		r.Log.Warn("a full reboot is due because of the age of the kernel", event.FullRebootDue.Field(),
			zap.Int("days", days), zap.String("kernel", f.KernelRelease),
			zap.String("due", f.RebootBy.UTC().Format(time.DateOnly)))
	}
}

// reminder returns how many whole days are left until a full reboot is due, at least 0, and whether a run says so: the
// first run of each day, counted back from when it is due. Before is when the last run ended. A zero time is not known.
func reminder(due, before, now time.Time) (days int, is bool) {
	if due.IsZero() {
		return 0, false
	}
	left := func(at time.Time) int { return int(math.Floor(due.Sub(at).Hours() / 24)) }
	return max(0, left(now)), left(now) < reminderDays && (before.IsZero() || left(before) != left(now))
}
