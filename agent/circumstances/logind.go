package circumstances

import (
	"context"
	"fmt"
	"slices"
	"strings"

	godbus "github.com/godbus/dbus/v5"
)

const (
	login1 = "org.freedesktop.login1"
	// maxSessions bounds how many sessions are looked at.
	maxSessions = 1024
)

// Users returns the names of the people who are logged in, sorted, each once. A login screen, the manager of a user's
// services, a job of cron, and a session that is about to end are nobody.
func Users(ctx context.Context, bus *godbus.Conn) ([]string, error) {
	ctx, end := context.WithTimeout(ctx, patience)
	defer end()
	var sessions []struct {
		ID   string
		UID  uint32
		User string
		Seat string
		Path godbus.ObjectPath
	}
	manager := bus.Object(login1, "/org/freedesktop/login1")
	if err := manager.CallWithContext(ctx, login1+".Manager.ListSessions", 0).Store(&sessions); err != nil {
		return nil, fmt.Errorf("cannot ask logind who is logged in: %w", err)
	}
	if len(sessions) > maxSessions {
		return nil, fmt.Errorf("logind lists %d sessions, more than %d", len(sessions), maxSessions)
	}
	var users []string
	for _, s := range sessions {
		if slices.Contains(users, s.User) {
			continue
		}
		person, err := isPerson(ctx, bus.Object(login1, s.Path))
		if err != nil {
			return nil, fmt.Errorf("cannot ask logind about session %q: %w", s.ID, err)
		}
		if person {
			users = append(users, s.User)
		}
	}
	slices.Sort(users)
	return users, nil
}

// isPerson reports whether a session is one of a person. One that ended since is not.
func isPerson(ctx context.Context, session godbus.BusObject) (bool, error) {
	text := map[string]string{}
	for _, name := range []string{"Class", "State"} {
		v, err := property(ctx, session, login1+".Session", name)
		if answered(err, "UnknownObject", "UnknownMethod", "UnknownInterface") {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		text[name], _ = v.Value().(string)
	}
	return (text["Class"] == "user" || strings.HasPrefix(text["Class"], "user-")) && text["State"] != "closing", nil
}

// MaintenanceTime returns when the administrator wants maintenance to be done, as logind knows it: a calendar
// expression of systemd. It is "" if none is set, if logind is older than systemd 256, and where there is no logind.
func MaintenanceTime(ctx context.Context, bus *godbus.Conn) (string, error) {
	manager := bus.Object(login1, "/org/freedesktop/login1")
	v, err := property(ctx, manager, login1+".Manager", "DesignatedMaintenanceTime")
	if answered(err, "UnknownProperty", "ServiceUnknown", "NameHasNoOwner") {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot ask logind for the designated maintenance time: %w", err)
	}
	expr, _ := v.Value().(string)
	return expr, nil
}
