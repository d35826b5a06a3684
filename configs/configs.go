// Package configs holds what is shipped besides the binaries: the commented configuration, the systemd units and
// lists. They are files to read and install. The binary embeds them, too: the agent adds the units to images that
// have none.
package configs

import (
	"embed"
	"fmt"
)

//go:embed dropins units udev updatectl.toml stale.conf derived.toml
var files embed.FS

// carried lists the units that the agent needs in an image root, with the links that start them. There is none for
// resuming, which starts from the host root.
var carried = map[string]string{
	"updatectl-arm.service":                             "",
	"updatectl-confirm.service":                         "",
	"updatectl-derive.service":                          "",
	"updatectl-guard.service":                           "",
	"updatectl-livepatch.service":                       "",
	"updatectl.service":                                 "",
	"updatectl.timer":                                   "",
	"multi-user.target.wants/updatectl-confirm.service": "-> ../updatectl-confirm.service",
	"sysinit.target.wants/updatectl-derive.service":     "-> ../updatectl-derive.service",
	"sysinit.target.wants/updatectl-livepatch.service":  "-> ../updatectl-livepatch.service",
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
		text, err := files.ReadFile("units/" + name)
		if err != nil {
			panic(fmt.Sprintf("a shipped unit is missing from the binary: %v", err)) // a build error
		}
		units[name] = string(text)
	}
	return units
}

// Stale returns the shipped list of files in /run that a soft reboot must not keep.
func Stale() string {
	text, err := files.ReadFile("stale.conf")
	if err != nil {
		panic(fmt.Sprintf("the shipped list of stale files is missing from the binary: %v", err)) // a build error
	}
	return string(text)
}

// Derived returns the shipped list of files in /etc that programs make from others.
func Derived() string {
	text, err := files.ReadFile("derived.toml")
	if err != nil {
		panic(fmt.Sprintf("the shipped list of derived files is missing from the binary: %v", err)) // a build error
	}
	return string(text)
}

// Example returns the text of the commented configuration file.
func Example() string {
	text, err := files.ReadFile("updatectl.toml")
	if err != nil {
		panic(fmt.Sprintf("the shipped configuration is missing from the binary: %v", err)) // a build error
	}
	return string(text)
}
