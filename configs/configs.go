// Package configs holds what is shipped besides the binaries: the commented configuration, the systemd units and
// lists. They are files to read and install. The binary embeds them, too: the agent adds the units to images that
// have none.
package configs

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed dropins units udev updatectl.toml stale.conf renew.conf derived.toml hostonly.conf
var files embed.FS

// carried lists the units that the agent needs in an image root, with the links that start them. There is none for
// resuming, nor for leaving a kernel on trial: both start from the host root.
var carried = map[string]string{
	"updatectl-arm.service":                             "",
	"updatectl-arrived.service":                         "",
	"updatectl-fetch.service":                           "",
	"updatectl-confirm.service":                         "",
	"updatectl-derive.service":                          "",
	"updatectl-guard.service":                           "",
	"updatectl-livepatch.service":                       "",
	"updatectl-metrics.service":                         "",
	"updatectl-metrics.socket":                          "",
	"updatectl-renew.service":                           "",
	"systemd-zram-setup@.service.d/updatectl.conf":      "",
	"updatectl-apply.service":                           "",
	"updatectl.timer":                                   "",
	"multi-user.target.wants/updatectl-arrived.service": "-> ../updatectl-arrived.service",
	"multi-user.target.wants/updatectl-confirm.service": "-> ../updatectl-confirm.service",
	"sysinit.target.wants/updatectl-derive.service":     "-> ../updatectl-derive.service",
	"sysinit.target.wants/updatectl-livepatch.service":  "-> ../updatectl-livepatch.service",
	"sysinit.target.wants/updatectl-renew.service":      "-> ../updatectl-renew.service",
}

// Units returns the text of the unit files that an image root needs, by their path below the system unit directory. A
// value that begins with "-> " is the target of a symbolic link.
func Units() map[string]string {
	units := map[string]string{}
	for name, link := range carried {
		if link != "" {
			units[name] = link
			continue
		}
		file := "units/" + name
		if strings.Contains(name, ".d/") {
			file = "dropins/" + name
		}
		text, err := files.ReadFile(file)
		if err != nil {
			panic(fmt.Sprintf("a shipped unit is missing from the binary: %v", err)) // a build error
		}
		units[name] = string(text)
	}
	return units
}

// Stale returns the shipped list of files in /run that a soft reboot must not keep.
func Stale() string { return shipped("stale.conf", "list of stale files") }

// Renew returns the shipped list of units that a soft reboot does not treat as a boot does.
func Renew() string { return shipped("renew.conf", "list of units to renew") }

// HostOnly returns the shipped list of units that a first image may lack.
func HostOnly() string { return shipped("hostonly.conf", "list of units of the host root") }

// Derived returns the shipped list of files in /etc that programs make from others.
func Derived() string { return shipped("derived.toml", "list of derived files") }

// Example returns the text of the commented configuration file.
func Example() string { return shipped("updatectl.toml", "configuration") }

// shipped returns the text of an embedded file.
func shipped(file, what string) string {
	text, err := files.ReadFile(file)
	if err != nil {
		panic(fmt.Sprintf("the shipped %s is missing from the binary: %v", what, err)) // a build error
	}
	return string(text)
}
