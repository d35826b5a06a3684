//go:build lab

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKilledRunLeavesTheMachineAsItWas kills a run that has a host, a registry, mounts, a loop device and a network,
// with a signal that leaves it no time for anything.
func TestKilledRunLeavesTheMachineAsItWas(t *testing.T) {
	program := filepath.Join(t.TempDir(), "labhost")
	build := exec.Command("go", "build", "-o", program, "./cmd/labhost")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build labhost: %v\n%s", err, out)
	}
	before := machine(t)

	up := exec.Command(program, "up")
	up.Env = append(os.Environ(), "LABHOST=killed")
	if out, err := up.CombinedOutput(); err != nil {
		t.Fatalf("cannot boot the host: %v\n%s", err, out)
	}
	visit, err := FindRun("labhost-killed")
	if err != nil {
		t.Fatal(err)
	}
	dir := findRunDir(t, "labhost-killed")
	cgroup := runCgroup(dir)
	if slices.Equal(before, machine(t)) {
		t.Fatal("a running host cannot be seen on the machine: this test would see nothing")
	}
	// the outer process, which everything else depends on
	if err := unix.Kill(parent(t, visit.pid), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := awaitEmpty(cgroup); err != nil {
		t.Fatalf("processes outlive their run: %v", err)
	}
	var now []string
	err = poll(patience, func() (bool, error) { now = machine(t); return slices.Equal(before, now), nil })
	if err != nil {
		t.Errorf("the machine is not as it was:\nbefore %q\nnow    %q", before, now)
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, cgroup} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left over (%v)", path, err)
		}
	}
}

// machine is what of a run could be seen on the machine: mounts, links, and loop devices on disks of that run.
func machine(t *testing.T) []string {
	t.Helper()
	var seen []string
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, CacheDir()) {
			seen = append(seen, "mount "+line)
		}
	}
	links, err := filepath.Glob("/sys/class/net/ve-*")
	if err != nil {
		t.Fatal(err)
	}
	seen = append(seen, links...)
	backings, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range backings {
		if file, err := os.ReadFile(path); err == nil && strings.Contains(string(file), "/killed/") {
			seen = append(seen, "loop "+string(file))
		}
	}
	return seen
}

func findRunDir(t *testing.T, mark string) string {
	t.Helper()
	marks, err := filepath.Glob(filepath.Join(runsDir(), runPrefix+"*", mark))
	if err != nil || len(marks) != 1 {
		t.Fatalf("found runs %v (%v), want one", marks, err)
	}
	return filepath.Dir(marks[0])
}

func parent(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var ppid int
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "PPid: %d", &ppid); n == 1 {
			return ppid
		}
	}
	t.Fatalf("process %d has no parent", pid)
	return 0
}
