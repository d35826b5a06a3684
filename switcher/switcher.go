// Package switcher holds the names that every room below it shares; the rooms know the machine. Together they promise that
// a root is armed only when it is complete, and that the host is left as it was when anything fails before systemd takes
// over.
//
// The way of a switch: switcher/facts reads what runs, switcher/rootfs what is in a root, and switcher/level decides which
// level the root needs. switcher/pid1 asks systemd for a soft reboot; when every service has stopped, switcher/assembly
// joins the new root with the host's state and mounts it at /run/nextroot, where systemd finds it. Back in userspace,
// switcher/level proves the switch by what is mounted at /: systemd falls back to the old root without an error.
package switcher

const (
	// HostRoot is the identity of the mutable root file system that the agent was first installed on.
	HostRoot = "host"
	// SourcePrefix begins the source text of the mount at / of an image root; the root's identity follows.
	SourcePrefix = "updatectl:"
	// NextRoot is where systemd looks for the root to move into (systemd-soft-reboot.service(8)).
	NextRoot = "/run/nextroot"
	// RunDir holds the lock and the stamps of the present switch. It survives a soft reboot and not a boot.
	RunDir = "/run/updatectl"
	// OldestSystemd is the first systemd version that can soft-reboot.
	OldestSystemd = 254
)
