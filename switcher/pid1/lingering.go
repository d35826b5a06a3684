package pid1

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"

	"github.com/coreos/go-systemd/v22/dbus"
)

// lingerDir has a file for each user whose services run without a session (loginctl enable-linger).
const lingerDir = "/var/lib/systemd/linger"

// StartLingering has systemd start the managers of users whose services run without a session, and does not wait for
// that. It returns the units that are started: those that are not active. After a soft reboot, logind may take a user
// that it finds in /run for one whose manager runs. The error joins those of single units.
func (Units) StartLingering(ctx context.Context) (started []string, err error) {
	managers, err := userManagers(lingerDir, user.Lookup)
	if err != nil || len(managers) == 0 {
		return nil, err
	}
	err = WithConn(ctx, func(conn *dbus.Conn) error {
		started, err = startInactive(ctx, conn, managers, "whose user lingers")
		return err
	})
	return started, err
}

// userManagers returns the units of the managers of lingering users. A user that nobody knows, at least this early, is
// left to logind.
func userManagers(dir string, lookup func(name string) (*user.User, error)) ([]string, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the lingering users: %w", err)
	}
	var units []string
	for _, f := range files {
		if u, err := lookup(f.Name()); err == nil {
			units = append(units, "user@"+u.Uid+".service")
		}
	}
	return units, nil
}
