// Package switcher knows the machine: what runs on it, whether its userspace can move into another root, and how. It
// promises that a root is armed only when it is complete, and that the host is left as it was when anything fails
// before systemd takes over.
//
// The way of a switch: [Decide] says which level the new root needs. The agent asks systemd for a soft reboot
// ([Machine.SoftReboot]); when every service has stopped, [Arm] joins the new root with the host's state and mounts it
// at /run/nextroot, where systemd finds it. Back in userspace, [Prove] compares what is mounted at / with what was
// asked for, because systemd falls back to the old root without an error.
package switcher

import (
	"os"
	"path/filepath"
)

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

// Machine is the host as seen below a directory: "/" for the running one, or another tree.
type Machine struct{ Root string }

// Live tells whether this is the running host.
func (m Machine) Live() bool { return filepath.Clean(m.Root) == "/" }

// Path is a path of the machine, given as an absolute path inside it.
func (m Machine) Path(p string) string { return filepath.Join(m.Root, p) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
