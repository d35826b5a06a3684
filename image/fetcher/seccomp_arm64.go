package fetcher

import "golang.org/x/sys/unix"

// auditArch is how the kernel names this architecture to a filter.
const auditArch = unix.AUDIT_ARCH_AARCH64

// oldSystemCalls are those that newer architectures do not have.
var oldSystemCalls []uintptr
