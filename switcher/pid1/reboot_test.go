package pid1

import (
	"errors"
	"fmt"
	"io"
	"testing"

	godbus "github.com/godbus/dbus/v5"
)

func TestAnswerLost(t *testing.T) {
	const busError = "org.freedesktop.DBus.Error."
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"the bus went down":  {fmt.Errorf("cannot ask: %w", io.EOF), true},
		"logind went away":   {fmt.Errorf("cannot ask: %w", godbus.Error{Name: busError + "NoReply"}), true},
		"logind is silent":   {fmt.Errorf("%w within 1m0s", ErrUnresponsive), true},
		"logind refused":     {fmt.Errorf("cannot ask: %w", godbus.Error{Name: busError + "AccessDenied"}), false},
		"an inhibitor lock":  {fmt.Errorf("%w: somebody", ErrInhibited), false},
		"no error":           {nil, false},
		"the connection cut": {errors.New("read unix @->/run/dbus/system_bus_socket: connection reset by peer"), true},
	} {
		if got := answerLost(c.err); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestInUnit: only a process of the unit is the unit, not one that a person or another service started.
func TestInUnit(t *testing.T) {
	for cgroup, want := range map[string]bool{
		"0::/system.slice/updatectl-confirm.service\n":                              true,
		"0::/system.slice/updatectl-confirm.service/judge\n":                        true,
		"12:pids:/\n1:name=systemd:/system.slice/updatectl-confirm.service":         true,
		"0::/machine.slice/lab/system.slice/updatectl-confirm.service\n":            true,
		"0::/machine.slice/engine-1.scope/system.slice/updatectl-confirm.service\n": true,
		"0::/user.slice/user-0.slice/session-3.scope\n":                             false,
		"0::/system.slice/not-updatectl-confirm.service\n":                          false,
		"0::/system.slice/system-updatectl\\x2dconfirm.slice/x.service\n":           false,
		"0::/system.slice/updatectl-confirm.service.d\n":                            false,
		"0::/system.slice/updatectl-apply.service\n":                                false,
		"": false,
	} {
		if got := inUnit(cgroup, ConfirmUnit); got != want {
			t.Errorf("%q: %v, want %v", cgroup, got, want)
		}
	}
}

// TestFailedBefore: what failed with the root that was left says nothing about the running one, unless that has a unit
// file for it, and starts it again.
func TestFailedBefore(t *testing.T) {
	for name, c := range map[string]struct {
		transient bool
		at        uint64
		want      bool
	}{
		"the scope of a container that ended": {true, 99, true},
		"a job of the running root":           {true, 101, false},
		"a service that has a unit file":      {false, 99, false},
	} {
		properties := map[string]any{"Transient": c.transient, "StateChangeTimestampMonotonic": c.at}
		if got := failedBefore(properties, 100); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
