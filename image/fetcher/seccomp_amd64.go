package fetcher

import "golang.org/x/sys/unix"

// auditArch is how the kernel names this architecture to a filter.
const auditArch = unix.AUDIT_ARCH_X86_64

// oldSystemCalls are those that newer architectures do not have.
var oldSystemCalls = []uintptr{
	unix.SYS_ARCH_PRCTL, unix.SYS_EPOLL_WAIT, unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_ACCESS, unix.SYS_READLINK,
	unix.SYS_POLL, unix.SYS_SELECT, unix.SYS_TIME,
}
