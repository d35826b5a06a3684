// Package decide answers what apply, switch and rollback do with what they find. It promises to do nothing itself: each
// decision is a table over plain data, and the command carries it out.
package decide

// Act is what a command does next.
type Act string

// What apply and rollback do.
const (
	Refuse   Act = "refuse"    // fail
	Stay     Act = "stay"      // unattended: leave the host on its host root
	Skip     Act = "skip"      // unattended: pass over what is published
	LiveOnly Act = "live only" // the root runs already: only live patches change
	Resume   Act = "resume"    // switch to the last good root, as it was left
	Switch   Act = "switch"    // switch: apply to the published image, which it stages, rollback to a good root

	Nothing    Act = "nothing" // rollback: the root runs already, or the error says why it cannot be rolled back to
	LeaveTrial Act = "trial"   // rollback: leave a root that is being tried, watched by its guard
)

// Decision is what a command does next, and why.
type Decision struct {
	Do Act
	// To is the root that a rollback leads to, "" when there is none.
	To  string
	Why string
	// Err is the error of Refuse and Nothing.
	Err error
}
