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

// Blocker is a task that keeps a transition from its end.
type Blocker struct {
	PID  int    `json:"pid"`
	TID  int    `json:"tid"`
	Name string `json:"name"`
	// Unit is the systemd unit that the task belongs to, "" when there is none.
	Unit string `json:"unit,omitempty"`
	// Kernel tells a thread of the kernel.
	Kernel bool `json:"kernel,omitempty"`
	// Ends tells that a soft reboot ends it.
	Ends bool `json:"ends"`
	// Stack is what it is in, the innermost function first; empty when the kernel does not say.
	Stack []string `json:"stack,omitempty"`
}

// String names the task, what it belongs to and the innermost function it is in.
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

// What /proc/PID/task/TID/patch_state says: which code a task runs while a transition goes on. Otherwise it is -1.
const (
	unpatched = "0"
	patched   = "1"
)

// Blockers lists the tasks that do not run the code that the transition of a patch leads to. A task that ends meanwhile is
// none.
func (k Kernel) Blockers(p Patch) []Blocker {
	target := unpatched
	if p.Enabled {
		target = patched
	}
	tasks, _ := filepath.Glob(k.path("/proc/[0-9]*/task/[0-9]*/patch_state")) // the pattern is a good one
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

// describe reads what /proc tells of a task.
func (k Kernel) describe(task string) (Blocker, bool) {
	name, err := os.ReadFile(filepath.Join(task, "comm"))
	if err != nil {
		return Blocker{}, false
	}
	process := filepath.Dir(filepath.Dir(task))
	pid, _ := strconv.Atoi(filepath.Base(process)) // the pattern has digits only
	tid, _ := strconv.Atoi(filepath.Base(task))
	b := Blocker{PID: pid, TID: tid, Name: strings.TrimSpace(string(name)), Kernel: isKernelThread(process), Stack: stackOf(task)}
	group := cgroupOf(process)
	b.Unit = unitOf(group)
	b.Ends = !b.Kernel && pid != 1 && !survives(process, k.path("/sys/fs/cgroup", group))
	return b, true
}

// isKernelThread tells by the flags in the process's stat (proc_pid_stat(5), PF_KTHREAD of linux/sched.h).
func isKernelThread(process string) bool {
	const flagKernelThread = 0x00200000
	stat, err := os.ReadFile(filepath.Join(process, "stat"))
	if err != nil {
		return false
	}
	// The name stands in brackets and may have any character in it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const flags = 6 // of the fields after the name
	if len(fields) <= flags {
		return false
	}
	n, err := strconv.ParseUint(fields[flags], 10, 32)
	return err == nil && n&flagKernelThread != 0
}

// maxStack bounds what is read of a stack; the kernel prints 64 entries.
const maxStack = 16 << 10

// stackOf reads the functions that a task is in. Root may read them where the kernel can tell.
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

// cgroupOf is the control group of a process in the unified hierarchy, as a path below its mount.
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

// unitOf is the innermost systemd unit in the path of a control group.
func unitOf(group string) string {
	for _, name := range slices.Backward(strings.Split(group, "/")) {
		if strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".scope") {
			return name
		}
	}
	return ""
}

// survives tells whether a process outlives a soft reboot: its unit has SurviveFinalKillSignal=, which systemd notes on the
// control group, or its name begins with "@", which is for what the root file system needs (systemd.kill(5),
// https://systemd.io/ROOT_STORAGE_DAEMONS).
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
