// Package switcher has the names that its subpackages share. Together they promise that a root is armed only when it is
// complete, and that the host is unchanged if anything fails before systemd takes over.
//
// A switch goes like this: switcher/facts reads what runs, switcher/rootfs what is in a root, and switcher/level
// decides which level the change needs. switcher/pid1 asks systemd for a soft reboot. When every service has stopped,
// switcher/assembly joins the new root with the host's state and mounts it at /run/nextroot, where systemd finds it.
// Afterwards, switcher/level proves the switch by what is mounted at /, because systemd falls back to the old root
// without an error.
package switcher

const (
	// HostRoot is the identity of the host root: the mutable root file system that the agent was first installed on.
	HostRoot = "host"
	// SourcePrefix is the beginning of the mount source of an image root at /; the root's identity follows.
	SourcePrefix = "updatectl:"
	// VolatilePrefix is the beginning of the mount source of each throw-away copy in a volatile root; the path follows.
	VolatilePrefix = "updatectl-volatile:"
	// NextRoot is where systemd looks for the next root (systemd-soft-reboot.service(8)).
	NextRoot = "/run/nextroot"
	// RunDir holds the lock and the stamps of the current switch. It survives a soft reboot, but not a full reboot.
	RunDir = "/run/updatectl"
	// PrivateDir is a directory in every image root that only root may enter. It is not below a state path: on a host with
	// one partition, what is mounted there has the device of /var, and a backup of that would descend into it.
	PrivateDir = "/.updatectl"
	// UnitDir is where an image has its unit files.
	UnitDir = "/usr/lib/systemd/system"
	// OldestSystemd is the first major version of systemd that can soft-reboot.
	OldestSystemd = 254
)
