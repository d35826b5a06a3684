package unattended

import (
	"context"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/circumstances"
	"github.com/updatectl/updatectl/agent/schedule"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// patience is how long the system bus and the services on it may take to answer.
const patience = 10 * time.Second

// On returns the runner of a host. What cannot be found out about its surroundings is logged, and speaks against
// nothing: a host whose logind is broken still gets its updates. Word returns one word for an error.
func On(a *agent.Agent, word func(error) string) *Runner {
	return &Runner{Agent: a, Word: word, Surroundings: Surroundings{
		Analyze:    schedule.Systemd,
		Designated: func(ctx context.Context) string { return ask(ctx, a, circumstances.MaintenanceTime) },
		Users:      func(ctx context.Context) []string { return ask(ctx, a, circumstances.Users) },
		Inhibitors: func(ctx context.Context) string { return ask(ctx, a, inhibitors) },
		Metered:    func(ctx context.Context) bool { return ask(ctx, a, circumstances.Metered) },
		Tell: func(ctx context.Context, at time.Time) {
			if err := circumstances.Tell(ctx, circumstances.Program, at, "`updatectl pause` puts it off"); err != nil {
				a.Log.Warn(err.Error())
			}
		},
		CallOff: func(ctx context.Context, why string) {
			if err := circumstances.CallOff(ctx, circumstances.Program, why); err != nil {
				a.Log.Warn(err.Error())
			}
		},
		OnBattery: func() bool {
			on, err := circumstances.OnBattery(a.Path(circumstances.Supplies))
			if err != nil {
				a.Log.Warn("cannot see whether the host runs on its battery", zap.Error(err))
			}
			return on
		},
		Sleep: func(ctx context.Context, d time.Duration) error {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(d):
				return nil
			}
		},
	}}
}

// ask asks a service on the system bus.
func ask[T any](ctx context.Context, a *agent.Agent, question func(context.Context, *godbus.Conn) (T, error)) T {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var answer T
	bus, err := circumstances.Open(ctx)
	if err == nil {
		defer bus.Close()
		answer, err = question(ctx, bus)
	}
	if err != nil {
		a.Log.Debug("a service of the host does not answer", zap.Error(err))
	}
	return answer
}

// inhibitors returns who blocks a shutdown.
func inhibitors(ctx context.Context, bus *godbus.Conn) (string, error) {
	return pid1.WhoInhibits(ctx, bus.Object("org.freedesktop.login1", "/org/freedesktop/login1"))
}
