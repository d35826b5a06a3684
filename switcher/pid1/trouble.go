package pid1

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// Trouble is what PID 1 knows about a root that did not become good and could not say why itself.
type Trouble struct {
	// Target is where systemd ended instead of its default target: rescue.target, emergency.target, or "".
	Target string
	// Failed lists the units that failed in this root.
	Failed []string
	// Unconfirmed tells that the unit which proves a root has nothing to wait for, and did not run.
	Unconfirmed bool
}

// maxNamed is how many failed units a sentence names.
const maxNamed = 5

// String is what is added to a reason, "" when nothing is known.
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

// AskTrouble asks PID 1, over its private socket, what went wrong in the root that began at since, by the clock that runs
// since the kernel booted: it remembers what failed in the roots before.
func (s System) AskTrouble(ctx context.Context, since time.Duration) (Trouble, error) {
	return bounded(ctx, askPatience, func(ctx context.Context) (Trouble, error) {
		var t Trouble
		err := With(ctx, func(conn *dbus.Conn) error {
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

// stateChanged is when a unit came into its state, by the clock that runs since the kernel booted; 0 when it cannot be told.
func stateChanged(ctx context.Context, conn *dbus.Conn, unit string) time.Duration {
	p, err := conn.GetUnitPropertyContext(ctx, unit, "StateChangeTimestampMonotonic")
	if err != nil {
		return 0
	}
	microseconds, _ := p.Value.Value().(uint64)
	return time.Duration(microseconds) * time.Microsecond
}
