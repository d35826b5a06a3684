package health

import (
	"regexp"
	"strings"
)

// ofUsers matches the names of units that users, or those who connect to the host, start and can make fail: one of them
// must not keep everybody from updates. They say nothing about the root.
var ofUsers = regexp.MustCompile(`^(` + strings.Join([]string{
	`user@.+\.service`, `user-runtime-dir@.+\.service`, `user-.+\.slice`, // a session and what lives on in it
	`.+\.scope`,                    // sessions, containers and machines: systemd starts none by itself
	`systemd-coredump@.+\.service`, // a program of somebody crashed
	`run-(u|r|p)[0-9a-f]+(-i[0-9]+)?\.(service|timer|path|socket)`,                          // systemd-run(1)
	`[^@]+@[0-9]+-([0-9]+(_[0-9]+)?-[0-9]+|[0-9a-f.:]+:[0-9]+-[0-9a-f.:]+:[0-9]+)\.service`, // one connection to a socket with Accept=yes
	`dbus-:[0-9.]+-.+@[0-9]+\.service`,                                                      // started on the bus for somebody
	`(home|run-user|run-media|media)-.+\.(mount|automount)`,                                 // of homes and removable disks
}, "|") + `)$`)

// isOfUsers reports whether a unit is no part of the root, but of what people do on the host.
func isOfUsers(unit string) bool { return ofUsers.MatchString(unit) }

// nobodyWaitsFor reports whether the start job of a unit keeps no root from being up: the unit is of a user, or a device.
// What needs a device has failed or been given up by the time that the root is judged, unless it is optional (nofail).
func nobodyWaitsFor(unit string) bool { return isOfUsers(unit) || strings.HasSuffix(unit, ".device") }
