// Package cgroups answers which control groups have processes, and freezes and ends them. It promises that what it
// freezes is thawed after a while, whatever becomes of the process that asked for it, and that nothing else is thawed.
package cgroups

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

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher"
)

// Group is a control group with processes of its own.
type Group struct {
	Path      string // below the hierarchy, beginning with "/"
	Frozen    bool   // by somebody else, as `docker pause` does
	Processes []Process
}

// Process is a process in a group.
type Process struct {
	UID       uint32 // the effective one
	Name      string // comm
	Command   string // the first argument, of a process of root's that is not contained; so is Fuse
	Self      bool   // this process
	Contained bool   // it is in another PID namespace than this process
	Fuse      bool   // it serves a FUSE file system
}

const (
	// Limit is how long groups are frozen at most.
	Limit = time.Minute
	// patience is how long processes may take to hold still. Most need milliseconds; one that waits for a disk needs
	// as long as that.
	patience = 2 * time.Second
	pause    = 5 * time.Millisecond
	// maxGroups bounds what is looked at. A busy host has some hundred.
	maxGroups = 20_000
	// maxNote bounds the note of what is frozen, in bytes.
	maxNote = 8 << 20
)

// Hierarchy is the unified hierarchy of control groups. The zero value is that of this machine.
type Hierarchy struct {
	dir, proc, note string // "" for the usual ones
}

func (h Hierarchy) file(group, name string) string {
	dir := h.dir
	if dir == "" {
		dir = "/sys/fs/cgroup"
	}
	return filepath.Join(dir, group, name)
}

func (h Hierarchy) process(pid, name string) string {
	proc := h.proc
	if proc == "" {
		proc = "/proc"
	}
	return filepath.Join(proc, pid, name)
}

// noteFile lists the groups that were frozen, one on each line.
func (h Hierarchy) noteFile() string {
	if h.note == "" {
		return switcher.RunDir + "/frozen"
	}
	return h.note
}

// UnitIn returns the outermost service or scope in the text of a /proc/PID/cgroup, "" when there is none. Below it are
// the units of a user manager, and what a container made.
func UnitIn(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		for part := range strings.SplitSeq(strings.TrimSpace(line), "/") {
			if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") {
				return part
			}
		}
	}
	return ""
}

// List returns the groups below the root that have processes. It is an error if this machine has no unified hierarchy,
// or is a container that sees the groups of others.
func (h Hierarchy) List() ([]Group, error) {
	init, err := os.ReadFile(h.process("1", "cgroup"))
	if err == nil && !slices.Contains(strings.Split(string(init), "\n"), "0::/init.scope") {
		err = errors.New("PID 1 is not in /init.scope")
	}
	if err == nil {
		_, err = os.Stat(h.file("/", "cgroup.controllers"))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look at the control groups: %w", err)
	}
	var groups []Group
	seen := 0
	top := h.file("/", "")
	err = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // it has ended meanwhile
			return nil
		}
		if err != nil || !d.IsDir() || p == top {
			return err
		}
		if seen++; seen > maxGroups {
			return fmt.Errorf("there are more than %d", maxGroups)
		}
		if g := h.group("/" + strings.TrimPrefix(p, top+"/")); len(g.Processes) > 0 {
			groups = append(groups, g)
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("cannot look at the control groups: %w", err)
	}
	return groups, err
}

// group returns a group with its processes; none if it has ended, or if another group has them (threaded groups).
func (h Hierarchy) group(name string) Group {
	g := Group{Path: name, Frozen: h.read(name, "cgroup.freeze") == "1"}
	for pid := range strings.FieldsSeq(h.read(name, "cgroup.procs")) {
		if p, ok := h.look(pid); ok {
			g.Processes = append(g.Processes, p)
		}
	}
	return g
}

func (h Hierarchy) read(group, name string) string {
	text, _ := os.ReadFile(h.file(group, name))
	return strings.TrimSpace(string(text))
}

// look returns what is known about a process, and false if it has ended. What cannot be read is nothing special.
func (h Hierarchy) look(pid string) (Process, bool) {
	var st unix.Stat_t
	if pid == "0" { // in an outer PID namespace
		return Process{Contained: true}, true
	}
	if unix.Stat(h.process(pid, ""), &st) != nil {
		return Process{}, false
	}
	name, _ := os.ReadFile(h.process(pid, "comm"))
	p := Process{UID: h.uid(pid, st.Uid), Name: strings.TrimSpace(string(name)), Self: pid == strconv.Itoa(os.Getpid())}
	ours, _ := os.Readlink(h.process("self", "ns/pid"))
	its, err := os.Readlink(h.process(pid, "ns/pid"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) { // it has ended meanwhile
		return Process{}, false
	}
	p.Contained = its != ours
	if p.UID == 0 && !p.Contained { // reading the arguments of others may wait for a file system of theirs
		command, _ := durable.ReadRegular(h.process(pid, "cmdline"), 64<<10)
		p.Command, _, _ = strings.Cut(string(command), "\x00")
		p.Fuse = h.servesFuse(pid)
	}
	return p, true
}

// uid returns the effective uid of a process; its directory in /proc may belong to root instead (proc_pid(5)).
func (h Hierarchy) uid(pid string, otherwise uint32) uint32 {
	text, _ := os.ReadFile(h.process(pid, "status"))
	for line := range strings.Lines(string(text)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(ids); len(f) > 1 {
				if id, err := strconv.ParseUint(f[1], 10, 32); err == nil {
					return uint32(id)
				}
			}
		}
	}
	return otherwise
}

// servesFuse reports whether a process has the device open that FUSE servers answer at.
func (h Hierarchy) servesFuse(pid string) bool {
	entries, _ := os.ReadDir(h.process(pid, "fd"))
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(h.process(pid, "fd"), e.Name())); err == nil && target == "/dev/fuse" {
			return true
		}
	}
	return false
}

// Freeze freezes groups. It returns those whose processes do not hold still soon; they may do so later. What is frozen
// is noted first, so that [Hierarchy.Thaw] finds it.
func (h Hierarchy) Freeze(groups []string) (moving []string, err error) {
	noted, _ := durable.ReadRegular(h.noteFile(), maxNote)
	note := string(noted) + strings.Join(groups, "\n") + "\n"
	if err := durable.WriteFile(h.noteFile(), []byte(note), 0o600); err != nil {
		return nil, fmt.Errorf("cannot note which control groups are frozen: %w", err)
	}
	for _, g := range groups {
		if werr := h.write(g, "cgroup.freeze", "1"); werr != nil {
			err = errors.Join(err, werr)
		}
	}
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		moving = nil
		for _, g := range groups {
			if events := h.read(g, "cgroup.events"); strings.Contains(events, "populated 1") &&
				!strings.Contains(events, "frozen 1") {
				moving = append(moving, g)
			}
		}
		if len(moving) == 0 || time.Now().After(end) {
			return moving, err
		}
	}
}

// Thaw thaws what [Hierarchy.Freeze] has frozen, also in a process that was killed. Without a note, it does nothing.
func (h Hierarchy) Thaw() error {
	note, err := durable.ReadRegular(h.noteFile(), maxNote)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read which control groups are frozen: %w", err)
	}
	for g := range strings.FieldsFuncSeq(string(note), func(r rune) bool { return r == '\n' }) {
		err = errors.Join(err, h.write(g, "cgroup.freeze", "0"))
	}
	if err == nil {
		err = os.Remove(h.noteFile())
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}

// ThawLate is [Hierarchy.Thaw] for what has been frozen for longer than Limit.
func (h Hierarchy) ThawLate() error {
	st, err := os.Stat(h.noteFile())
	if err != nil || time.Since(st.ModTime()).Abs() < Limit {
		return nil
	}
	return h.Thaw()
}

// Kill ends the processes of groups, at once and whatever they wait for.
func (h Hierarchy) Kill(groups []string) error {
	var err error
	for _, g := range groups {
		err = errors.Join(err, h.write(g, "cgroup.kill", "1"))
	}
	return err
}

// write writes into a file of a group. A group that has ended meanwhile is no error.
func (h Hierarchy) write(group, name, text string) error {
	f, err := os.OpenFile(h.file(group, name), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
