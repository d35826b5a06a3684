// Package hook runs the programs that operators and images add to a switch, such as one that takes the host out of a
// load balancer. It promises that all hooks of an event together end within their deadline, and that only a hook of an
// event that comes before something can keep it from happening.
package hook

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/updatectl/updatectl/agent/program"
	"github.com/updatectl/updatectl/verify/printable"
)

// Event is a moment of an update at which hooks run.
type Event string

// The events.
const (
	BeforeFetch  Event = "before-fetch"  // nothing of the image is on this host yet
	BeforeSwitch Event = "before-switch" // the root is staged, and services still run
	CalledOff    Event = "called-off"    // the switch that was announced by BeforeSwitch does not happen
	Good         Event = "good"          // the new root became good
	Bad          Event = "bad"           // the new root was not healthy
	RolledBack   Event = "rolled-back"   // the former root runs again
)

// Vetoes reports whether a hook can keep from happening what the event announces.
func (e Event) Vetoes() bool { return e == BeforeFetch || e == BeforeSwitch }

// About describes the update to a hook. A field that is not known is "".
type About struct {
	From, FromVersion string // the root that is left, and its version
	To, Version       string // the root that is switched to, and its version
	Level             string // live, soft or full
	Reason            string // why, for the events CalledOff, Bad and RolledBack
}

// Dirs are the directories with hooks. Files in a later one override those of the same name in an earlier one.
type Dirs []string

// DirsOf returns the directories of a root: the image's, then the operator's.
func DirsOf(root string) Dirs {
	return Dirs{filepath.Join(root, "/usr/lib/updatectl/hooks.d"), filepath.Join(root, "/etc/updatectl/hooks.d")}
}

// Any reports whether there is a hook.
func Any(dirs Dirs) bool { return len(program.List(dirs...)) > 0 }

// ErrVeto means that a hook does not want the update to go on for now.
var ErrVeto = errors.New("a hook vetoed")

// Veto is the [ErrVeto] of a hook.
type Veto struct {
	Hook   string // the path of the program
	Event  Event
	Reason string // how it ended, and the last line that it wrote
}

// Error names the hook, the event and the reason.
func (v *Veto) Error() string {
	return fmt.Sprintf("the hook %s vetoed %s: %s", v.Hook, v.Event, v.Reason)
}

// Is makes a veto an [ErrVeto].
func (v *Veto) Is(target error) bool { return target == ErrVeto }

// errDeadline is the cause of a context that ended with the deadline of the hooks.
var errDeadline = errors.New("the hooks did not end within their deadline")

// Run runs the hooks of an event, one after the other in the order of their names. All of them together have until the
// deadline, and [program.TermGrace] after that.
//
// At an event that can be vetoed, the first hook that fails ends the run with a [Veto]; the hooks before it have
// already acted, so a caller that gets any error for [BeforeSwitch] runs the hooks of [CalledOff]. At other events,
// every hook runs, and failures are warnings. When the context ends, the error is its cause.
func Run(ctx context.Context, dirs Dirs, event Event, about About, deadline time.Duration) (warnings []string,
	err error) {
	limited, cancel := context.WithTimeoutCause(ctx, deadline, errDeadline)
	defer cancel()
	for _, h := range program.List(dirs...) {
		reason := run(limited, h, event, about)
		switch {
		case reason == "":
		case ctx.Err() != nil:
			return warnings, fmt.Errorf("cannot run the hooks of %s: %w", event, context.Cause(ctx))
		case event.Vetoes():
			return nil, &Veto{Hook: h.Path, Event: event, Reason: reason}
		default:
			warnings = append(warnings, fmt.Sprintf("the hook %s failed at %s: %s", h.Path, event, reason))
		}
	}
	return warnings, nil
}

// run runs a hook and returns why it failed, "" if it did not.
func run(ctx context.Context, h program.File, event Event, about About) string {
	if h.Broken != "" {
		return h.Broken
	}
	if ctx.Err() != nil {
		return fmt.Sprintf("it was not run: %v", context.Cause(ctx))
	}
	output, err := program.Execute(ctx, []string{h.Path, string(event)}, environment(ctx, event, about)...)
	if err == nil {
		return ""
	}
	reason := err.Error()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		reason = fmt.Sprintf("exit code %d", exit.ExitCode())
	}
	if line := program.LastLine(program.EscapeLines(output)); line != "" {
		reason += ": " + line
	}
	return reason
}

// environment returns the variables that describe the event to a hook. The deadline is in seconds from now.
func environment(ctx context.Context, event Event, about About) []string {
	var left time.Duration
	if end, ok := ctx.Deadline(); ok {
		left = max(0, time.Until(end))
	}
	variables := []string{"UPDATECTL_DEADLINE=" + strconv.Itoa(int(left.Seconds()))}
	for _, v := range [][2]string{
		{"EVENT", string(event)}, {"FROM", about.From}, {"FROM_VERSION", about.FromVersion}, {"TO", about.To},
		{"VERSION", about.Version}, {"LEVEL", about.Level}, {"REASON", about.Reason},
	} {
		variables = append(variables, "UPDATECTL_"+v[0]+"="+printable.Text(v[1]))
	}
	return variables
}
