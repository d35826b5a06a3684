package fetcher

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readable are the files and directories that resolving names and the texts of errors (times) need. A link is followed
// here. A file that is replaced later cannot be read: after a failure there is another fetcher.
var readable = []string{
	"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime", "/usr/share/zoneinfo",
}

const (
	mayRead = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	mayRun  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE
)

// Landlock returns the version of the kernel's Landlock, 0 if it has none. Then a fetcher is confined by its user and
// the filter of system calls alone.
func Landlock() int {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(version)
}

// handled returns the kinds of access that the rules decide about: all that a version of Landlock knows
// (linux/landlock.h), except for connecting, because registries listen at any port. What no rule allows is denied.
func handled(version int) unix.LandlockRulesetAttr {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1}
	if version >= 2 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version >= 3 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= 4 {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP
	}
	if version >= 5 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if version >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return attr
}

// rules are a ruleset of Landlock, nil without Landlock.
type rules struct{ file *os.File }

// makeRules returns the rules for a fetcher.
func makeRules() (*rules, error) {
	version := Landlock()
	if version == 0 {
		return nil, nil
	}
	attr := handled(version)
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr),
		0)
	if errno != 0 {
		return nil, os.NewSyscallError("landlock_create_ruleset", errno)
	}
	r := &rules{os.NewFile(fd, "landlock")}
	for _, path := range readable {
		if err := r.allow(path, mayRead); err != nil {
			return nil, err
		}
	}
	for _, path := range programFiles() {
		if err := r.allow(path, mayRun); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// programFiles returns the files that this program is made of: one, unless it is linked with libraries.
func programFiles() []string {
	files := []string{"/proc/self/exe"}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return files
	}
	for line := range strings.Lines(string(maps)) {
		if fields := strings.Fields(line); len(fields) == 6 && strings.HasPrefix(fields[5], "/") && fields[1][2] == 'x' {
			files = append(files, fields[5])
		}
	}
	return files
}

// allow allows access to a file, or to a directory and everything below it. What cannot be opened, usually because it
// does not exist, needs no rule.
func (r *rules) allow(path string, access uint64) error {
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.IsDir() {
		access &^= unix.LANDLOCK_ACCESS_FS_READ_DIR
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(f.Fd())}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, r.file.Fd(), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	return os.NewSyscallError("landlock_add_rule", errnoOrNil(errno))
}

// enforce applies the rules to this thread, and to what it starts.
func (r *rules) enforce() error {
	if r == nil {
		return nil
	}
	defer r.file.Close()
	_, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, r.file.Fd(), 0, 0)
	return os.NewSyscallError("landlock_restrict_self", errnoOrNil(errno))
}

func errnoOrNil(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
