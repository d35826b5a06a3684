package mount

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNumbers means that the files of an image cannot be shown with this host's numbers.
var ErrNumbers = errors.New("cannot show the image's files with this host's uids and gids")

// Numbers map the uids and gids on disk to those that a mount shows. A number that is missing is shown as it is, unless
// another one is shown as that: then it is nobody's.
type Numbers struct{ UID, GID map[uint32]uint32 }

// moves reports whether any number changes.
func (n Numbers) moves() bool {
	for _, m := range []map[uint32]uint32{n.UID, n.GID} {
		for from, to := range m {
			if from != to {
				return true
			}
		}
	}
	return false
}

// ShowNumbers makes a detached tree that was just made show other numbers (an idmapped mount, mount_setattr(2)): those
// of owners, of ACLs and of file capabilities. The error is an ErrNumbers.
func (t *Tree) ShowNumbers(n Numbers) error {
	if !n.moves() {
		return nil
	}
	ns, err := userNamespace(n)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNumbers, err)
	}
	defer ns.Close()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	if err := unix.MountSetattr(int(t.file.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("%w: cannot make an idmapped mount: %w", ErrNumbers, err)
	}
	return nil
}

// holder is the name under which this program runs again, to hold a user namespace until its descriptor is open.
const holder = "updatectl: holds a user namespace"

func init() {
	if os.Args[0] == holder {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the process that wants the namespace
		os.Exit(0)
	}
}

// userNamespace returns a user namespace that maps numbers. Only a process can make one, and it must not have threads,
// so a child does.
func userNamespace(n Numbers) (*os.File, error) {
	uids, err := extents(n.UID)
	if err != nil {
		return nil, fmt.Errorf("uids: %w", err)
	}
	gids, err := extents(n.GID)
	if err != nil {
		return nil, fmt.Errorf("gids: %w", err)
	}
	ns, err := holdNamespace(uids, gids)
	if errors.Is(err, unix.ENOSPC) { // user.max_user_namespaces is 0 on a hardened host
		restore, lerr := allowNamespaces()
		if lerr != nil {
			return nil, errors.Join(err, lerr)
		}
		ns, err = holdNamespace(uids, gids)
		err = errors.Join(err, restore())
	}
	return ns, err
}

// holdNamespace starts a child in a new user namespace, and returns a descriptor of that.
func holdNamespace(uids, gids []syscall.SysProcIDMap) (*os.File, error) {
	child := exec.Cmd{Path: "/proc/self/exe", Args: []string{holder}, SysProcAttr: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: uids, GidMappings: gids,
	}}
	stdin, err := child.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	if err := child.Start(); err != nil {
		return nil, fmt.Errorf("cannot make a user namespace: %w", err)
	}
	ns, err := os.Open("/proc/" + strconv.Itoa(child.Process.Pid) + "/ns/user")
	stdin.Close()
	_ = child.Process.Kill()
	_ = child.Wait() // it was killed
	if err != nil {
		return nil, fmt.Errorf("cannot open a user namespace: %w", err)
	}
	return ns, nil
}

// namespaceLimit is how many user namespaces each user may have.
const namespaceLimit = "/proc/sys/user/max_user_namespaces"

// allowNamespaces raises the limit of user namespaces, which the returned function restores.
func allowNamespaces() (restore func() error, err error) {
	const enough = "1024" // far above what root has by accident
	before, err := os.ReadFile(namespaceLimit)
	if err != nil {
		return nil, fmt.Errorf("cannot read the limit of user namespaces: %w", err)
	}
	set := func(value string) error {
		if err := os.WriteFile(namespaceLimit, []byte(value), 0); err != nil {
			return fmt.Errorf("cannot set the limit of user namespaces: %w", err)
		}
		return nil
	}
	return func() error { return set(strings.TrimSpace(string(before))) }, set(enough)
}

// lastNumber is the largest uid and gid. On 32-bit machines the runtime can map no larger one.
const lastNumber = min(math.MaxUint32-1, math.MaxInt)

// extents returns the lines of uid_map(5) for a map of numbers; the rest of the numbers stays as it is.
func extents(m map[uint32]uint32) ([]syscall.SysProcIDMap, error) {
	points, source := map[uint32]bool{}, map[uint32]uint32{}
	for _, from := range slices.Sorted(maps.Keys(m)) {
		to := m[from]
		if by, twice := source[to]; twice {
			return nil, fmt.Errorf("both %d and %d would be %d", by, from, to)
		}
		source[to] = from
		if from != to {
			points[from], points[to] = true, true
		}
	}
	var lines []syscall.SysProcIDMap
	next := uint64(0)
	for _, p := range slices.Sorted(maps.Keys(points)) {
		if uint64(p) > next {
			lines = append(lines, extent(next, next, uint64(p)-next))
		}
		if to, ok := m[p]; ok {
			lines = append(lines, extent(uint64(p), uint64(to), 1))
		}
		next = uint64(p) + 1
	}
	if next <= lastNumber {
		lines = append(lines, extent(next, next, lastNumber+1-next))
	}
	return lines, fits(lines)
}

func extent(inside, outside, count uint64) syscall.SysProcIDMap {
	return syscall.SysProcIDMap{ContainerID: int(inside), HostID: int(outside), Size: int(min(count, math.MaxInt))}
}

// fits returns an error if the kernel does not take that many lines: at most 340, in less than a page.
func fits(lines []syscall.SysProcIDMap) error {
	const maxLines, maxBytes = 340, 4095
	size := 0
	for _, l := range lines {
		size += len(fmt.Sprintln(l.ContainerID, l.HostID, l.Size))
	}
	if len(lines) > maxLines || size > maxBytes {
		return fmt.Errorf("too many names have another number here: %d lines of a map", len(lines))
	}
	return nil
}
