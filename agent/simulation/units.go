package simulation

import (
	"context"

	"github.com/updatectl/updatectl/switcher/cgroups"
	systemd "github.com/updatectl/updatectl/switcher/pid1"
)

// units is a PID 1 that a soft reboot leaves no unit active in.
type units struct{}

func (units) Services(context.Context) ([]systemd.Service, error)  { return nil, nil }
func (units) Unstopped(context.Context) ([]systemd.Service, error) { return nil, nil }
func (units) Renew(context.Context, string) error                  { return nil }
func (units) StartWanted(context.Context) ([]string, error)        { return nil, nil }
func (units) StartLingering(context.Context) ([]string, error)     { return nil, nil }
func (units) TriggerDevices(context.Context) error                 { return nil }

// groups are the control groups of a machine whose processes have all ended when a root is armed.
type groups struct{}

func (groups) List() ([]cgroups.Group, error)    { return nil, nil }
func (groups) Freeze([]string) ([]string, error) { return nil, nil }
func (groups) Thaw() error                       { return nil }
func (groups) ThawLate() error                   { return nil }
func (groups) Kill([]string) error               { return nil }
