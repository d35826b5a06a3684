// Package keep answers which units a soft reboot hands over to the next root, how, and why one cannot be. It promises
// that a unit it lets pass is there in both roots, says the same where that counts, and holds nothing of the root that
// is left.
package keep

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Way is how a unit gets over a soft reboot.
type Way string

const (
	// Descriptors: the service restarts, and gets back what it has put into its store of file descriptors.
	Descriptors Way = "descriptors"
	// Socket: the socket stays open. What connects meanwhile waits for the service.
	Socket Way = "socket"
	// Process: the processes of the service go on.
	Process Way = "process"
)

// Now is a unit as the running systemd has it.
type Now struct {
	// Active is whether it is active; Runs, whether it has a process.
	Active, Runs bool
	// Room is how many file descriptors its store takes, and Stored how many are in it.
	Room, Stored int
	// Ends are the units that it depends on and that a soft reboot stops, which stops it, too.
	Ends []string
	// Holds is what its processes hold of the running root.
	Holds []string
	// Service is the service that a socket starts.
	Service string
}

// Kept is a unit that is to be kept.
type Kept struct {
	Unit string `json:"unit"`
	Way  Way    `json:"way"`
	// Refusal is why it cannot be kept, "" if it can.
	Refusal string `json:"refusal,omitempty"`
	// Service is the service that a socket starts.
	Service string `json:"service,omitempty"`
}

// WayOf returns how a unit is to be kept: a service that has a store by its store, unless it claims to survive.
func WayOf(unit string, u Now, here Settings) Way {
	switch {
	case strings.HasSuffix(unit, ".socket"):
		return Socket
	case u.Room > 0 && !here.isOn("Unit.SurviveFinalKillSignal"):
		return Descriptors
	}
	return Process
}

// Judge returns how a unit is kept, by how it is now and what the files of both roots say.
func Judge(unit string, u Now, here, there Tree) Kept {
	own, _ := here.Unit(unit)
	k := Kept{Unit: unit, Way: WayOf(unit, u, own), Service: u.Service}
	next, found := there.Unit(unit)
	switch {
	case !u.Active:
		k.Refusal = "it is not active; start it, or take it out of [[keep]]"
	case !found:
		k.Refusal = "the new root has no unit of this name"
	case k.Way == Descriptors:
		k.Refusal = refuseStore(u, next)
	case k.Way == Socket:
		k.Refusal = refuseSocket(u, own, next, there)
	default:
		k.Refusal = refuseProcess(u, own, next, min(here.Systemd, there.Systemd))
	}
	return k
}

// refuseStore returns why the descriptors of a service cannot be kept, "" if they can.
func refuseStore(u Now, next Settings) string {
	room := 0
	if _, err := fmt.Sscan(next.last("Service.FileDescriptorStoreMax"), &room); err != nil {
		room = 0
	}
	switch {
	case room == 0:
		return "it has no store of file descriptors in the new root (FileDescriptorStoreMax=)"
	case room < u.Stored:
		return fmt.Sprintf("it keeps %d file descriptors, and its store in the new root takes %d "+
			"(FileDescriptorStoreMax=)", u.Stored, room)
	}
	return ""
}

// ofSockets are the settings by which a socket is the same in both roots: systemd does not open anew what is open.
var ofSockets = []string{"ListenStream", "ListenDatagram", "ListenSequentialPacket", "ListenFIFO", "ListenSpecial",
	"ListenNetlink", "ListenMessageQueue", "ListenUSBFunction", "BindToDevice", "BindIPv6Only"}

// refuseSocket returns why a socket cannot be kept, "" if it can.
func refuseSocket(u Now, own, next Settings, there Tree) string {
	if own.isOn("Socket.Accept") || next.isOn("Socket.Accept") {
		return "systemd itself accepts its connections (Accept=yes), and could serve none during the switch"
	}
	for _, key := range ofSockets {
		if a, b := own["Socket."+key], next["Socket."+key]; !slices.Equal(a, b) {
			return fmt.Sprintf("%s= is %q here and %q in the new root", key, strings.Join(a, " "), strings.Join(b, " "))
		}
	}
	if service := next.last("Socket.Service"); service != own.last("Socket.Service") {
		return fmt.Sprintf("it starts %s here and %s in the new root", u.Service, service)
	}
	if _, found := there.Unit(u.Service); !found {
		return "the new root has no " + u.Service + ", which answers its connections"
	}
	return refuseStanding(u, own, next)
}

// surviveSince is the systemd that leaves processes alone which are to survive.
const surviveSince = 255

// refuseProcess returns why the processes of a service cannot survive, "" if they can.
func refuseProcess(u Now, own, next Settings, systemd int) string {
	if !u.Runs {
		return "it has no process, and no store of file descriptors (FileDescriptorStoreMax=): there is nothing to keep"
	}
	if systemd != 0 && systemd < surviveSince { // 0: not known
		return fmt.Sprintf("systemd %d ends all processes: SurviveFinalKillSignal= needs %d, in both roots", systemd,
			surviveSince)
	}
	if reason := refuseStanding(u, own, next); reason != "" {
		return reason
	}
	if len(u.Holds) > 0 {
		return "it would hold the root that is left: " + strings.Join(u.Holds, ", ") +
			"; its files have to lie in kept state ([state] persist)"
	}
	return ""
}

// refuseStanding returns why a soft reboot stops a unit in spite of its drop-in, "" if it does not.
func refuseStanding(u Now, own, next Settings) string {
	conflicts := slices.Concat(own.words("Unit.Conflicts"), next.words("Unit.Conflicts"))
	for _, target := range []string{"shutdown.target", "umount.target", "soft-reboot.target"} {
		if slices.Contains(conflicts, target) {
			return "its unit says Conflicts=" + target + ", which no drop-in takes back"
		}
	}
	if len(u.Ends) > 0 {
		return "it needs " + strings.Join(u.Ends, ", ") + ", which a soft reboot stops"
	}
	return ""
}

// otherShutdowns are what stops a kept unit that a soft reboot does not stop.
const otherShutdowns = "Conflicts=reboot.target kexec.target poweroff.target halt.target\n" +
	"Conflicts=rescue.target emergency.target\nBefore=shutdown.target rescue.target emergency.target\n"

// DropIn returns what a unit gets so that it is kept (systemd-soft-reboot.service(8)).
func DropIn(w Way) string {
	switch w {
	case Descriptors:
		return "[Service]\nFileDescriptorStorePreserve=yes\n"
	case Socket:
		return "[Unit]\nDefaultDependencies=no\nIgnoreOnIsolate=yes\n" + otherShutdowns
	}
	return "[Unit]\nDefaultDependencies=no\nIgnoreOnIsolate=yes\nSurviveFinalKillSignal=yes\nAfter=basic.target\n" +
		otherShutdowns
}

// HoldUnit is what a kept socket starts while services stop. systemd cannot start the real service then, and would
// give the socket up; this one has nothing to do, so that connections wait in the socket.
const HoldUnit = "updatectl-hold.service"

// HoldText is the file of that unit.
const HoldText = "[Unit]\nDescription=Hold the sockets that updatectl keeps while their services are away\n" +
	"DefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"

// Hold is the drop-in of a socket for as long.
const Hold = "[Socket]\nService=" + HoldUnit + "\n"

// IsUnitName reports whether a unit of this name can be kept: a service or a socket, and no template.
func IsUnitName(name string) bool {
	ext := path.Ext(name)
	stem := strings.TrimSuffix(name, ext)
	return (ext == ".service" || ext == ".socket") && stem != "" && !strings.HasSuffix(stem, "@") &&
		!strings.ContainsAny(name, "/ \t\n*?[]")
}
