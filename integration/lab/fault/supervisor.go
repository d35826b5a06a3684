//go:build linux && amd64

package fault

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notification and answer are struct seccomp_notif and seccomp_notif_resp of linux/seccomp.h.
type notification struct {
	id         uint64
	pid, flags uint32
	data       struct {
		nr, arch uint32
		ip       uint64
		args     [6]uint64
	}
}

type answer struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// supervisor answers the calls of one process.
type supervisor struct {
	spec     Spec
	errno    unix.Errno
	pid      int
	listener int
	log      *os.File
	seen     map[string]int // how often each step occurred
	failing  string         // the area in which an error stays
}

// serve answers calls until the process has ended.
func (s *supervisor) serve() {
	for {
		var n notification
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), unix.SECCOMP_IOCTL_NOTIF_RECV,
			uintptr(unsafe.Pointer(&n)))
		if errno == unix.EINTR || errno == unix.ENOENT { // ENOENT: the caller was killed while it waited
			continue
		}
		if errno != 0 {
			return
		}
		a := answer{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if e := s.judge(&n); e != 0 {
			a.err, a.flags = -int32(e), 0
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), unix.SECCOMP_IOCTL_NOTIF_SEND,
			uintptr(unsafe.Pointer(&a)))
	}
}

// judge logs a step and returns the error that replaces it, 0 for none.
func (s *supervisor) judge(n *notification) unix.Errno {
	if threadGroup(n.pid) != s.pid { // a program that the command runs
		return 0
	}
	name, kind, where := n.name(n.pid)
	if name == "" {
		return 0
	}
	s.seen[name]++
	hit := s.spec.Do != "" && name == s.spec.Step && s.seen[name] == s.spec.Nth
	text, err := json.Marshal(Step{Name: name, Kind: kind, Hit: hit})
	if err == nil {
		_, _ = s.log.Write(append(text, '\n'))
	}
	switch {
	case hit && s.spec.Do == "KILL":
		_ = unix.Kill(s.pid, unix.SIGKILL)
		return unix.EINTR // nobody reads it; the call must not happen
	case hit && s.spec.Stays:
		s.failing = where
		fallthrough
	case hit:
		return s.errno
	case s.failing == where && slices.Contains(concerned[s.errno], kind):
		return s.errno
	}
	return 0
}

// threadGroup returns the process of a thread.
func threadGroup(tid uint32) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "\nTgid:")
	pid := 0
	_, _ = fmt.Sscan(rest, &pid)
	return pid
}
