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
