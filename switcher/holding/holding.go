// Package holding answers which processes hold a root: by their program and libraries, by open files and directories,
// and by mount namespaces of their own. A root that is held stays mounted and keeps its disk space after the host has
// left it. It looks at processes only, and follows no file of theirs.
package holding

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Holder is a process that holds a root which the host has left.
type Holder struct {
	PID  int    `json:"pid"`
	Name string `json:"name"`
	// Unit is the unit that it belongs to, "" if it is in none.
	Unit string `json:"unit,omitempty"`
	// Holds is what it holds of the root.
	Holds []string `json:"holds"`
}

// view is where processes and their control groups are seen.
type view struct{ proc, cgroup string }

var machine = view{"/proc", "/sys/fs/cgroup"}

// maxProcesses bounds how many processes are looked at; most things held by one are shown.
const (
	maxProcesses = 50_000
	maxShown     = 4
)

// Of returns what the processes of a control group hold of the root that runs, besides what is in directories that do
// not belong to it.
func Of(group string, kept []string) ([]string, error) {
	return within(patience, func() ([]string, error) { return machine.of(group, kept) })
}

// Left returns the processes that hold a root which the host has left.
func Left() ([]Holder, error) { return within(patience, machine.left) }

// patience is how long it may take to look at processes: a file of theirs may be on a server that does not answer.
const patience = 5 * time.Second

// ErrTooLong means that what processes hold was not seen in time.
var ErrTooLong = errors.New("looking at what processes hold takes too long; a file of theirs may be on a disk or a " +
	"server that does not answer")

// within returns the answer of a look, or an ErrTooLong after the limit. The look goes on then: it cannot be
// interrupted.
func within[T any](limit time.Duration, look func() (T, error)) (T, error) {
	type answer struct {
		found T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		found, err := look()
		answers <- answer{found, err}
	}()
	select {
	case a := <-answers:
		return a.found, a.err
	case <-time.After(limit):
		var none T
		return none, ErrTooLong
	}
}

func (v view) of(group string, kept []string) ([]string, error) {
	if group == "" {
		return nil, nil
	}
	root, err := placeOf("/")
	if err != nil {
		return nil, fmt.Errorf("cannot see which mount is the root: %w", err)
	}
	top := topMount(filepath.Join(v.proc, "self/mountinfo"))
	isRoot := func(name string, f place) bool {
		return f.mount == root.mount && !slices.ContainsFunc(kept, func(dir string) bool {
			return name == dir || strings.HasPrefix(name, dir+"/")
		})
	}
	var holds []string
	err = filepath.WalkDir(filepath.Join(v.cgroup, group), func(dir string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !d.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		pids, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(pids)) {
			switch {
			case !v.hasOwnMounts(pid):
				holds = append(holds, v.files(pid, isRoot)...)
			case v.hasMount(pid, top):
				holds = append(holds, "a mount namespace of its own (as PrivateTmp= and ProtectSystem= make one)")
			}
		}
		return nil
	})
	return shorten(holds), err
}

func (v view) left() ([]Holder, error) {
	entries, err := os.ReadDir(v.proc)
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes: %w", err)
	}
	running, now := rootSources(filepath.Join(v.proc, "1/mountinfo")), mountsIn(filepath.Join(v.proc, "1/mountinfo"))
	isLeft := func(name string, f place) bool { return hasName(name) && now.isGone(f) }
	var holders []Holder
	for _, e := range entries[:min(len(entries), maxProcesses)] {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 {
			continue
		}
		var holds []string
		if v.hasOwnMounts(e.Name()) {
			for _, source := range rootSources(filepath.Join(v.proc, e.Name(), "mountinfo")) {
				if !slices.Contains(running, source) {
					holds = append(holds, "a mount namespace of its own with "+strings.TrimPrefix(source, source0))
				}
			}
		} else {
			holds = v.files(e.Name(), isLeft)
		}
		if len(holds) > 0 {
			comm, _ := os.ReadFile(filepath.Join(v.proc, e.Name(), "comm"))
			holders = append(holders, Holder{PID: pid, Name: strings.TrimSpace(string(comm)), Unit: v.unitOf(e.Name()),
				Holds: shorten(holds)})
		}
	}
	return holders, nil
}

// source0 begins the source of the mount of a root, before its identity.
const source0 = "updatectl:"

// rootSources returns the sources of the mounts of roots in a mount namespace.
func rootSources(file string) (sources []string) {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		_, end, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(end); len(fields) > 1 && strings.HasPrefix(fields[1], source0) {
			sources = append(sources, fields[1])
		}
	}
	return sources
}

// place is where a file lies: on which mount, and on which device.
type place struct {
	mount  uint64
	device [2]uint32
}

// mounts are the mounts of a mount namespace, and the devices that are mounted there.
type mounts struct {
	numbers map[uint64]bool
	devices map[[2]uint32]bool
}

// isGone reports whether a file is on a file system that is mounted nowhere here. Another mount of the same one, such
// as that of /var in the former root, pins nothing of a root.
func (m mounts) isGone(f place) bool { return !m.numbers[f.mount] && !m.devices[f.device] }

// unnamed begin the names of what the kernel keeps on mounts of its own: memory that is shared, and such.
var unnamed = []string{"/memfd:", "/SYSV", "/dev/zero", "/[", "/dmabuf:", "/drm", "/i915", "/anon"}

// hasName reports whether the link of a process names a file: sockets, pipes and memory files have none.
func hasName(name string) bool {
	return strings.HasPrefix(name, "/") &&
		!slices.ContainsFunc(unnamed, func(begin string) bool { return strings.HasPrefix(name, begin) })
}

// files returns the files and directories of a process on mounts that match.
func (v view) files(pid string, matches func(name string, f place) bool) (holds []string) {
	dir, seen := filepath.Join(v.proc, pid), map[string]bool{}
	look := func(link, what string) {
		name, err := os.Readlink(link)
		if err != nil || seen[name] {
			return
		}
		seen[name] = true
		f, err := placeOf(link)
		if err == nil && matches(name, f) {
			holds = append(holds, strings.TrimSpace(what+" "+strings.TrimSuffix(name, " (deleted)")))
		}
	}
	look(filepath.Join(dir, "exe"), "the program")
	for _, n := range []string{"cwd", "root"} {
		if name, err := os.Readlink(filepath.Join(dir, n)); err == nil && name != "/" { // that moves along
			look(filepath.Join(dir, n), "the directory")
		}
	}
	for _, sub := range []struct{ dir, what string }{{"map_files", "the library or file"}, {"fd", "the open file"}} {
		names, _ := os.ReadDir(filepath.Join(dir, sub.dir))
		for _, n := range names {
			look(filepath.Join(dir, sub.dir, n.Name()), sub.what)
		}
	}
	return holds
}

// topMount returns what is mounted at / in a mountinfo file: its device, and the directory on it.
func topMount(file string) (device string) {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" {
			device = f[2] + " " + f[3]
		}
	}
	return device
}

// hasMount reports whether a device with a directory on it is mounted anywhere in the mount namespace of a process.
func (v view) hasMount(pid, what string) bool {
	text, _ := os.ReadFile(filepath.Join(v.proc, pid, "mountinfo"))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && f[2]+" "+f[3] == what {
			return true
		}
	}
	return false
}

// hasOwnMounts reports whether a process has another mount namespace than PID 1.
func (v view) hasOwnMounts(pid string) bool {
	own, err := os.Readlink(filepath.Join(v.proc, pid, "ns/mnt"))
	first, ferr := os.Readlink(filepath.Join(v.proc, "1/ns/mnt"))
	return err == nil && ferr == nil && own != first
}

// placeOf returns where the file lies that a path leads to.
func placeOf(p string) (place, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, p, unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC,
		unix.STATX_TYPE|unix.STATX_MNT_ID, &st)
	if kind := st.Mode & unix.S_IFMT; err == nil && kind != unix.S_IFREG && kind != unix.S_IFDIR {
		err = errors.New("neither a file nor a directory") // a device, which is in no root
	}
	if err == nil && st.Mask&unix.STATX_MNT_ID == 0 {
		err = errors.New("the kernel does not tell mounts apart (statx)")
	}
	return place{st.Mnt_id, [2]uint32{st.Dev_major, st.Dev_minor}}, err
}

// mountsIn returns the mounts in a mountinfo file. Of btrfs, files have another device than the mount: that of the
// mount point counts, too.
func mountsIn(file string) mounts {
	m := mounts{map[uint64]bool{}, map[[2]uint32]bool{}}
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		var number, parent uint64
		var device [2]uint32
		if _, err := fmt.Sscanf(line, "%d %d %d:%d ", &number, &parent, &device[0], &device[1]); err == nil {
			m.numbers[number], m.devices[device] = true, true
		}
		if f := strings.Fields(line); len(f) > 4 {
			if at, err := placeOf(f[4]); err == nil && at.mount == number {
				m.devices[at.device] = true
			}
		}
	}
	return m
}

// unitOf returns the unit that a process belongs to, by its control group.
func (v view) unitOf(pid string) string {
	text, _ := os.ReadFile(filepath.Join(v.proc, pid, "cgroup"))
	for name := range strings.SplitSeq(strings.TrimSpace(string(text)), "/") {
		if strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".scope") {
			return name
		}
	}
	return ""
}

// shorten returns the first of a list, each once, and how many more there are.
func shorten(list []string) []string {
	var once []string
	for _, s := range list {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	if more := len(once) - maxShown; more > 0 {
		return append(once[:maxShown], fmt.Sprintf("%d more", more))
	}
	return once
}
