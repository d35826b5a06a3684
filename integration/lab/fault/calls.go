//go:build linux && amd64

package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is what a step does; it decides which errors the step can meet.
type Kind string

const (
	Read  Kind = "read"
	Space Kind = "space" // needs space on the disk
	Names Kind = "names" // changes names or attributes and needs no space
	Sync  Kind = "sync"
	Mount Kind = "mount"
)

// errnos are the errors that can be injected.
var errnos = map[string]unix.Errno{
	"ENOSPC": unix.ENOSPC, "EIO": unix.EIO, "EROFS": unix.EROFS, "EINTR": unix.EINTR, "ENOMEM": unix.ENOMEM,
	"EDQUOT": unix.EDQUOT,
}

// concerned lists the kinds that keep failing when an error stays.
var concerned = map[unix.Errno][]Kind{
	unix.ENOSPC: {Space}, unix.EDQUOT: {Space}, unix.EROFS: {Space, Names}, unix.EIO: {Read, Space, Names, Sync},
}

// A call is a system call that is a step: its name, its kind, and the numbers of the arguments that say what it
// touches, -1 for none.
type call struct {
	name string
	kind Kind
	dir  int // the directory that a relative path starts from
	path int
	fd   int
}

func byPath(name string, kind Kind, dir, path int) call { return call{name, kind, dir, path, -1} }
func byFD(name string, kind Kind, fd int) call          { return call{name, kind, -1, -1, fd} }
func byName(name string) call                           { return call{name, Mount, -1, -1, -1} }

// calls are the steps. A rename has the name of its target.
var calls = map[uintptr]call{
	unix.SYS_OPENAT:          byPath("open", Read, 0, 1), // or another kind, by its flags
	unix.SYS_READ:            byFD("read", Read, 0),
	unix.SYS_PREAD64:         byFD("read", Read, 0),
	unix.SYS_GETDENTS64:      byFD("list", Read, 0),
	unix.SYS_WRITE:           byFD("write", Space, 0),
	unix.SYS_PWRITE64:        byFD("write", Space, 0),
	unix.SYS_COPY_FILE_RANGE: byFD("write", Space, 2),
	unix.SYS_FTRUNCATE:       byFD("truncate", Space, 0),
	unix.SYS_MKDIRAT:         byPath("mkdir", Space, 0, 1),
	unix.SYS_SYMLINKAT:       byPath("symlink", Space, 1, 2),
	unix.SYS_LINKAT:          byPath("link", Space, 2, 3),
	unix.SYS_MKNODAT:         byPath("mknod", Space, 0, 1),
	unix.SYS_RENAMEAT:        byPath("rename", Space, 2, 3),
	unix.SYS_RENAMEAT2:       byPath("rename", Space, 2, 3),
	unix.SYS_LSETXATTR:       byPath("setxattr", Space, -1, 0),
	unix.SYS_UNLINKAT:        byPath("unlink", Names, 0, 1),
	unix.SYS_FCHMOD:          byFD("chmod", Names, 0),
	unix.SYS_FCHMODAT:        byPath("chmod", Names, 0, 1),
	unix.SYS_LCHOWN:          byPath("chown", Names, -1, 0),
	unix.SYS_FCHOWNAT:        byPath("chown", Names, 0, 1),
	unix.SYS_UTIMENSAT:       byPath("utimes", Names, 0, 1),
	unix.SYS_FSYNC:           byFD("sync", Sync, 0),
	unix.SYS_SYNCFS:          byFD("syncfs", Sync, 0),
	unix.SYS_OPEN_TREE:       byPath("open_tree", Mount, 0, 1),
	unix.SYS_MOVE_MOUNT:      byPath("move_mount", Mount, 2, 3),
	unix.SYS_UMOUNT2:         byPath("umount", Mount, -1, 0),
	unix.SYS_FSOPEN:          byName("fsopen"),
	unix.SYS_FSCONFIG:        byName("fsconfig"),
	unix.SYS_FSMOUNT:         byName("fsmount"),
	unix.SYS_MOUNT_SETATTR:   byName("mount_setattr"),
}

// watched are the areas in which calls are steps; an error that stays is limited to its area. /proc/self/fd has the
// images that the program has mounted for its own use.
var watched = []string{"/var", "/run/updatectl", "/run/nextroot", "/etc", "/home", "/srv", "/root", "/proc/self/fd",
	"/dev/loop"}

func area(path string) string {
	for _, w := range watched {
		if path == w || strings.HasPrefix(path, w+"/") {
			return w
		}
	}
	return ""
}

// plain removes from a path what differs between runs, and gives things of which there are many, such as the files of
// an /etc or a graft, one name.
var plain = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`[0-9a-f]{12,}`), "*"},
	{regexp.MustCompile(`\d{4,}`), "*"},
	{regexp.MustCompile(`/objects/[0-9a-f]{2}\b`), "/objects/*"},
	{regexp.MustCompile(`/large-\d+`), "/large-*"},
	{regexp.MustCompile(`(/roots/[^/]+/(?:etc|graft)[^/]*)/.+`), "$1/…"},
	{regexp.MustCompile(`^(/etc/updatectl)/.+`), "$1/…"},
	{regexp.MustCompile(`^(/etc|/home|/srv|/root|/proc/self/fd|/dev/loop)/(?:[^u].*|u[^p].*|\d+)`), "$1/…"},
	{regexp.MustCompile(`^/var/(?:[^l].*|lib/[^u].*|l[^i].*)`), "/var/…"},
}

func normal(path string) string {
	for _, p := range plain {
		path = p.what.ReplaceAllString(path, p.by)
	}
	return path
}

// name returns the name and the kind of a step, and its area: "" for a call that is no step.
func (n *notification) name(pid uint32) (step string, kind Kind, where string) {
	c := calls[uintptr(n.data.nr)]
	path := ""
	switch {
	case c.path >= 0:
		path = n.pathname(pid, c)
	case c.fd >= 0:
		path, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, int32(n.data.args[c.fd])))
		path = strings.TrimSuffix(path, " (deleted)")
	default:
		return c.name, c.kind, "mounts"
	}
	if where = area(path); where == "" {
		return "", "", ""
	}
	if n.data.nr == unix.SYS_OPENAT {
		switch flags := n.data.args[2]; {
		case flags&unix.O_PATH != 0:
			return "", "", ""
		case flags&(unix.O_CREAT|unix.O_TRUNC) != 0:
			c.name, c.kind = "create", Space
		case flags&unix.O_ACCMODE != unix.O_RDONLY:
			c.kind = Names
		}
	}
	return c.name + " " + normal(path), c.kind, where
}

// pathname returns the path argument of a call, "" if it cannot be read.
func (n *notification) pathname(pid uint32, c call) string {
	path := readString(pid, uintptr(n.data.args[c.path]))
	if strings.HasPrefix(path, "/") {
		return path
	}
	if c.dir < 0 {
		return ""
	}
	fd := int32(n.data.args[c.dir])
	link := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
	if fd == unix.AT_FDCWD {
		link = fmt.Sprintf("/proc/%d/cwd", pid)
	}
	dir, err := os.Readlink(link)
	if err != nil {
		return ""
	}
	return filepath.Join(dir, path)
}

// readString reads a string of another process, page by page: the page after its end may not exist.
func readString(pid uint32, at uintptr) string {
	const page = 4096
	var text []byte
	for len(text) < unix.PathMax {
		part := make([]byte, page-at%page)
		local := []unix.Iovec{{Base: &part[0]}}
		local[0].SetLen(len(part))
		n, err := unix.ProcessVMReadv(int(pid), local, []unix.RemoteIovec{{Base: at, Len: len(part)}}, 0)
		if err != nil {
			break
		}
		if before, _, ended := strings.Cut(string(part[:n]), "\x00"); ended {
			return string(text) + before
		}
		text = append(text, part[:n]...)
		at += uintptr(n)
	}
	return string(text)
}
