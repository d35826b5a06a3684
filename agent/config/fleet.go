package config

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"time"
)

// Schedule says when an unattended update may fetch and switch.
type Schedule struct {
	// Fetch and Switch are when windows begin, as in OnCalendar= of systemd.time(7); without any, it may at any time.
	Fetch  []string `toml:"fetch" json:"fetch"`
	Switch []string `toml:"switch" json:"switch"`
	// Length is how long a window is open.
	Length Duration `toml:"length" json:"length"`
	// TimeZone is the zone of the windows that name none, "" for that of the host.
	TimeZone string `toml:"time-zone" json:"time_zone"`
	// Grace is how long people who are logged in are warned before a switch.
	Grace Duration `toml:"grace" json:"grace"`
	// Inhibitors is how long a switch waits for inhibitor locks.
	Inhibitors Duration `toml:"inhibitors" json:"inhibitors"`
}

// Fleet says what this host shares with others.
type Fleet struct {
	// Group names the hosts that take turns with this one, for the lock server and for rollouts.
	Group string `toml:"group" json:"group"`
}

// Rollout says how early this host takes part in the rollout of a release.
type Rollout struct {
	// Wariness is the position of the host, from 0 for the first ones to 1 for the last. Nil is a position that differs
	// from release to release.
	Wariness *float64 `toml:"wariness,omitempty" json:"wariness,omitempty"`
}

// FleetLock names a server that bounds how many hosts of a group are down at the same time.
type FleetLock struct {
	// URL is the base of the FleetLock protocol, "" for none.
	URL string `toml:"url" json:"url"`
}

// Hooks bounds the programs in hooks.d.
type Hooks struct {
	// Deadline is how long all hooks of one event may take together.
	Deadline Duration `toml:"deadline" json:"deadline"`
}

// Metrics says where monitoring reads about this host.
type Metrics struct {
	// Textfile is the directory of the textfile collector of node_exporter. Nothing is written where it does not exist.
	Textfile string `toml:"textfile" json:"textfile"`
}

// defaultFleet sets the defaults of the tables for hosts that update unattended.
func (c *Config) defaultFleet() {
	c.Schedule = Schedule{
		Fetch: []string{}, Switch: []string{"*-*-* 03:00:00"}, Length: Duration(2 * time.Hour),
		Grace: Duration(5 * time.Minute), Inhibitors: Duration(30 * time.Minute),
	}
	c.Fleet.Group = "default"
	c.Hooks.Deadline = Duration(5 * time.Minute)
	c.Metrics.Textfile = "/var/lib/prometheus/node-exporter"
}

// Bounds of [schedule] length. A shorter window could lie between two looks at the clock; a longer one is none.
const (
	minWindow = 30 * time.Minute
	maxWindow = 7 * 24 * time.Hour
)

// groupName matches the groups that the FleetLock protocol allows.
var groupName = regexp.MustCompile(`^[a-zA-Z0-9.-]{1,128}$`)

// validateFleet reports every fault of the tables for hosts that update unattended. Whether systemd understands the
// windows, and knows the time zone, needs systemd: see package schedule.
func (c *Config) validateFleet(fault func(key, format string, args ...any)) {
	if l := time.Duration(c.Schedule.Length); l < minWindow || l > maxWindow {
		fault("schedule.length", "[schedule] length is %v and must be from 30m to 168h", l)
	}
	if g, l := c.Schedule.Grace, c.Schedule.Length; g >= l {
		fault("schedule.grace", "[schedule] grace is %v and must be less than length, %v: otherwise nothing is switched "+
			"while somebody is logged in", time.Duration(g), time.Duration(l))
	}
	if !groupName.MatchString(c.Fleet.Group) {
		fault("fleet.group", "[fleet] group is %q and may have letters, digits, dots and dashes only", c.Fleet.Group)
	}
	if w := c.Rollout.Wariness; w != nil && !(*w >= 0 && *w <= 1) { // not a number is neither
		fault("rollout.wariness", "[rollout] wariness is %v and must be from 0 to 1", *w)
	}
	if err := checkLockURL(c.FleetLock.URL); err != nil {
		fault("fleetlock.url", "[fleetlock] url: %w", err)
	}
	if d := c.Metrics.Textfile; d != "" && (!filepath.IsAbs(d) || filepath.Clean(d) != d) {
		fault("metrics.textfile", "[metrics] textfile: %q is not a clean absolute path", d)
	}
}

// checkLockURL returns what is wrong with the address of a lock server.
func checkLockURL(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is not an address such as \"https://lock.example.org\"", text)
	}
	if u.User != nil {
		return errors.New("it has a password, and the protocol knows none")
	}
	return nil
}
