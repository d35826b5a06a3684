package livepatch

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Blocker is a task that keeps a transition from ending.
type Blocker struct {
	PID  int    `json:"pid"`
	TID  int    `json:"tid"`
	Name string `json:"name"`
	// Unit is the systemd unit that the task belongs to, "" when there is none.
	Unit string `json:"unit,omitempty"`
	// Kernel is whether it is a kernel thread.
	Kernel bool `json:"kernel,omitempty"`
	// Ends is whether a soft reboot ends it.
	Ends bool `json:"ends"`
	// Stack lists the functions that it is in, the innermost first; empty when the kernel does not show them.
	Stack []string `json:"stack,omitempty"`
}

// String returns the names of the task, of its unit and of the innermost function that it is in.
func (b Blocker) String() string {
	text := fmt.Sprintf("%s (process %d", b.Name, b.PID)
	if b.TID != b.PID {
		text += fmt.Sprintf(", thread %d", b.TID)
	}
	switch {
	case b.Kernel:
		text += ", of the kernel"
	case b.Unit != "":
		text += ", " + b.Unit
	}
	if len(b.Stack) > 0 {
		text += ", in " + b.Stack[0]
	}
	return text + ")"
}

// The values of /proc/PID/task/TID/patch_state during a transition: which code the task runs. At other times it is -1.
const (
	unpatched = "0"
	patched   = "1"
)

// Blockers returns the tasks that do not run the code yet that the transition of a patch leads to, by thread id. Tasks
// that end meanwhile are left out.
func (k Kernel) Blockers(p Patch) []Blocker {
	target := unpatched
	if p.Enabled {
		target = patched
	}
	tasks, _ := filepath.Glob(k.path("/proc/[0-9]*/task/[0-9]*/patch_state")) // the pattern is valid
	var found []Blocker
	for _, file := range tasks {
		state, err := os.ReadFile(file)
		word := strings.TrimSpace(string(state))
		if err != nil || word == target || word == "-1" {
			continue
		}
		if b, alive := k.describe(filepath.Dir(file)); alive {
			found = append(found, b)
		}
	}
	slices.SortFunc(found, func(a, b Blocker) int { return a.TID - b.TID })
	return found
}

// describe returns what /proc shows about a task, and whether the task still exists.
func (k Kernel) describe(task string) (Blocker, bool) {
	name, err := os.ReadFile(filepath.Join(task, "comm"))
	if err != nil {
		return Blocker{}, false
	}
	process := filepath.Dir(filepath.Dir(task))
	pid, _ := strconv.Atoi(filepath.Base(process)) // the pattern has digits only
	tid, _ := strconv.Atoi(filepath.Base(task))
	b := Blocker{
		PID: pid, TID: tid, Name: strings.TrimSpace(string(name)),
		Kernel: isKernelThread(process), Stack: stackOf(task),
	}
	group := cgroupOf(process)
	b.Unit = unitOf(group)
	b.Ends = !b.Kernel && pid != 1 && !survives(process, k.path("/sys/fs/cgroup", group))
	return b, true
}

// isKernelThread reports whether a process is a thread of the kernel, by its flags (proc_pid_stat(5), PF_KTHREAD in
// linux/sched.h).
func isKernelThread(process string) bool {
	const flagKernelThread = 0x00200000
	stat, err := os.ReadFile(filepath.Join(process, "stat"))
	if err != nil {
		return false
	}
	// The name is in brackets and may contain any character.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const flags = 6 // of the fields after the name
	if len(fields) <= flags {
		return false
	}
	n, err := strconv.ParseUint(fields[flags], 10, 32)
	return err == nil && n&flagKernelThread != 0
}

// maxStack bounds how many bytes of a stack are read; the kernel prints 64 entries.
const maxStack = 16 << 10

// stackOf returns the functions that a task is in. Only root may read them.
func stackOf(task string) []string {
	f, err := os.Open(filepath.Join(task, "stack"))
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxStack))
	if err != nil {
		return nil
	}
	var stack []string
	for line := range strings.Lines(string(text)) {
		// "[<0>] do_wait+0x56/0xe0"
		if _, function, ok := strings.Cut(strings.TrimSpace(line), "] "); ok {
			stack = append(stack, function)
		}
	}
	return stack
}

// cgroupOf returns the control group of a process in the unified hierarchy, as a path below its mount.
func cgroupOf(process string) string {
	text, err := os.ReadFile(filepath.Join(process, "cgroup"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return group
		}
	}
	return ""
}

// unitOf returns the innermost systemd unit in the path of a control group, "" for none.
func unitOf(group string) string {
	for _, name := range slices.Backward(strings.Split(group, "/")) {
		if strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".scope") {
			return name
		}
	}
	return ""
}

// survives reports whether a process survives a soft reboot: its unit has SurviveFinalKillSignal=, which systemd marks
// on the control group (systemd.kill(5)), or its command line begins with "@", as for storage daemons of the root file
// system (https://systemd.io/ROOT_STORAGE_DAEMONS).
func survives(process, group string) bool {
	for _, name := range []string{"user.survive_final_kill_signal", "trusted.survive_final_kill_signal"} {
		value := make([]byte, 8)
		if n, err := unix.Getxattr(group, name, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	command, err := os.ReadFile(filepath.Join(process, "cmdline"))
	return err == nil && strings.HasPrefix(string(command), "@")
}
