package simulation

import (
	"context"

	systemd "github.com/updatectl/updatectl/switcher/pid1"
)

// units is a PID 1 that a soft reboot leaves no unit active in.
type units struct{}

func (units) Services(context.Context) ([]systemd.Service, error) { return nil, nil }
func (units) Renew(context.Context, string) error                 { return nil }
func (units) StartWanted(context.Context) ([]string, error)       { return nil, nil }
func (units) StartLingering(context.Context) ([]string, error)    { return nil, nil }
func (units) TriggerDevices(context.Context) error                { return nil }
