package health

import (
	"regexp"
	"strings"
)

// ofUsers matches the names of units that users, or those who connect to the host, start and can make fail: one of them
// must not keep everybody from updates. They say nothing about the root.
var ofUsers = regexp.MustCompile(`^(` + strings.Join([]string{
	// A session, and what lives on in it.
	`user@.+\.service`, `user-runtime-dir@.+\.service`, `user-.+\.slice`,
	// Sessions, containers and machines: systemd itself starts no scope.
	`.+\.scope`,
	// A program of somebody crashed.
	`systemd-coredump@.+\.service`,
	// systemd-run(1).
	`run-(u|r|p)[0-9a-f]+(-i[0-9]+)?\.(service|timer|path|socket)`,
	// One connection to a socket with Accept=yes.
	`[^@]+@[0-9]+-([0-9]+(_[0-9]+)?-[0-9]+|[0-9a-f.:]+:[0-9]+-[0-9a-f.:]+:[0-9]+)\.service`,
	// Started on the bus for somebody.
	`dbus-:[0-9.]+-.+@[0-9]+\.service`,
	// Homes, and removable disks.
	`(home|run-user|run-media|media)-.+\.(mount|automount)`,
}, "|") + `)$`)

// isOfUsers reports whether a unit is no part of the root, but of what people do on the host.
func isOfUsers(unit string) bool { return ofUsers.MatchString(unit) }

// nobodyWaitsFor reports whether a root is up although the start job of a unit still runs: the unit is of a user, or a
// device. What needs a device has failed by the time that the root is judged, unless it is optional (nofail).
func nobodyWaitsFor(unit string) bool { return isOfUsers(unit) || strings.HasSuffix(unit, ".device") }
