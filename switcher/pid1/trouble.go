package pid1

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// Trouble is what PID 1 knows about a root that did not become good and could not report why.
type Trouble struct {
	// Target is rescue.target or emergency.target if systemd ended in it instead of the default target; otherwise "".
	Target string
	// Failed lists the units that failed in this root.
	Failed []string
	// Unconfirmed is whether ConfirmUnit did not run, although multi-user.target was reached.
	Unconfirmed bool
}

// maxNamed is how many failed units [Trouble.String] names.
const maxNamed = 5

// String returns what is known, in words that follow a reason; "" when nothing is.
func (t Trouble) String() string {
	var parts []string
	if t.Target != "" {
		parts = append(parts, "systemd ended in "+t.Target)
	}
	if len(t.Failed) > 0 {
		named := strings.Join(t.Failed[:min(len(t.Failed), maxNamed)], ", ")
		if more := len(t.Failed) - maxNamed; more > 0 {
			named += fmt.Sprintf(" and %d more", more)
		}
		parts = append(parts, "these units failed: "+named)
	}
	if t.Unconfirmed {
		parts = append(parts, ConfirmUnit+" did not run")
	}
	return strings.Join(parts, "; ")
}

// AskTrouble returns what went wrong in the running root. since is when that root started, as the time since the kernel
// booted: PID 1 also remembers what failed in earlier roots.
func (s System) AskTrouble(ctx context.Context, since time.Duration) (Trouble, error) {
	return bounded(ctx, askPatience, func(ctx context.Context) (Trouble, error) {
		var t Trouble
		err := WithConn(ctx, func(conn *dbus.Conn) error {
			units, err := conn.ListUnitsContext(ctx)
			if err != nil {
				return fmt.Errorf("cannot list the units: %w", err)
			}
			up := false
			confirm := "inactive"
			for _, u := range units {
				switch {
				case u.ActiveState == "failed" && u.LoadState != "not-found" && stateChanged(ctx, conn, u.Name) >= since:
					t.Failed = append(t.Failed, u.Name)
				case u.ActiveState == "active" && (u.Name == "rescue.target" || u.Name == "emergency.target"):
					t.Target = u.Name
				case u.ActiveState == "active" && u.Name == "multi-user.target":
					up = true
				}
				if u.Name == ConfirmUnit {
					confirm = u.ActiveState
				}
			}
			slices.Sort(t.Failed)
			t.Unconfirmed = up && confirm == "inactive"
			return nil
		})
		return t, err
	})
}

// stateChanged returns when a unit entered its state, as the time since the kernel booted; 0 when that is not known.
func stateChanged(ctx context.Context, conn *dbus.Conn, unit string) time.Duration {
	p, err := conn.GetUnitPropertyContext(ctx, unit, "StateChangeTimestampMonotonic")
	if err != nil {
		return 0
	}
	microseconds, _ := p.Value.Value().(uint64)
	return time.Duration(microseconds) * time.Microsecond
}
