package fetcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// probeName begins the names of processes that try what a fetcher must not do, and tell how it went. With the user and
// Landlock alone, the system calls are not limited.
const (
	probeName = "probe"
	probeAll  = probeName + ": everything"
	probeSome = probeName + ": the user and Landlock"
)

// attempts are what a fetcher that was taken over would try, and with which error it fails: in a fetcher, and without
// the filter of system calls.
var attempts = map[string]struct {
	try        func() error
	want, some error
}{
	"read the passwords": {opens("/etc/shadow", unix.O_RDONLY), unix.EACCES, unix.EACCES},
	"read who is there":  {opens("/etc/passwd", unix.O_RDONLY), unix.EACCES, unix.EACCES},
	"list the root":      {opens("/", unix.O_RDONLY), unix.EACCES, unix.EACCES},
	"read a process":     {opens("/proc/self/environ", unix.O_RDONLY), unix.EACCES, unix.EACCES},
	"write in /tmp":      {opens("/tmp/updatectl-probe", unix.O_CREAT|unix.O_WRONLY), unix.EACCES, unix.EACCES},
	"write to a device":  {opens("/dev/null", unix.O_WRONLY), unix.EACCES, unix.EACCES},
	"read time zones":    {opens("/usr/share/zoneinfo", unix.O_RDONLY), nil, nil},
	"read name servers":  {opens("/etc/resolv.conf", unix.O_RDONLY), nil, nil},
	"look into root": {func() error {
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(os.Getppid()), 0, 0, 0, 0)
		return errnoOrNil(errno)
	}, unix.ENOSYS, unix.EPERM},
	"signal root":      {func() error { return unix.Kill(os.Getppid(), 0) }, unix.ENOSYS, unix.EPERM},
	"become root":      {func() error { return unix.Setuid(0) }, unix.ENOSYS, unix.EPERM},
	"run a program":    {func() error { return unix.Exec("/bin/true", []string{"true"}, nil) }, unix.ENOSYS, unix.EACCES},
	"make a namespace": {func() error { return unix.Unshare(unix.CLONE_NEWNET) }, unix.ENOSYS, unix.EPERM},
	"mount":            {func() error { return unix.Mount("x", "/tmp", "tmpfs", 0, "") }, unix.ENOSYS, unix.EPERM},
	"ask the bus":      {sockets(unix.AF_UNIX, unix.SOCK_STREAM), unix.EACCES, nil},
	"sniff":            {sockets(unix.AF_PACKET, unix.SOCK_RAW), unix.EACCES, unix.EPERM},
	"connect":          {sockets(unix.AF_INET, unix.SOCK_STREAM), nil, nil},
	"fork": {func() error {
		pid, _, errno := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD)|unix.CLONE_VFORK|unix.CLONE_UNTRACED, 0, 0)
		if errno == 0 && pid == 0 {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		return errnoOrNil(errno)
	}, unix.EACCES, nil},
}

func opens(path string, flags int) func() error {
	return func() error {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

func sockets(family, kind int) func() error {
	return func() error {
		fd, err := unix.Socket(family, kind, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

// probe makes all attempts, tells how each ended, and waits until root has gone. It does not return.
func probe(name string) {
	if name == probeAll {
		if err := confineSelf(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	results := map[string]int{}
	for name, a := range attempts {
		var errno unix.Errno
		if err := a.try(); err != nil && !errors.As(err, &errno) {
			errno = 9999
		}
		results[name] = int(errno)
	}
	control := os.NewFile(controlFD, "control")
	json.NewEncoder(control).Encode(results)
	io.Copy(io.Discard, control)
	os.Exit(0)
}

// TestWhatAFetcherMayDo lets a process like a fetcher try what it must not do, and looks at what it is.
func TestWhatAFetcherMayDo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run the tests as root")
	}
	if Landlock() == 0 {
		t.Fatal("the tests need a kernel with Landlock")
	}
	// A descriptor that nobody meant for it, as a shell leaves them.
	left, err := unix.Open("/etc/shadow", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(left)
	for _, name := range []string{probeAll, probeSome} {
		p, err := startProcess(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		var results map[string]int
		if err := json.NewDecoder(p.control).Decode(&results); err != nil {
			t.Fatalf("%s: %v, %s", name, err, p.ending(err))
		}
		for attempt, a := range attempts {
			want := a.want
			if name == probeSome {
				want = a.some
			}
			errno, _ := want.(unix.Errno)
			if got, tried := results[attempt]; !tried || got != int(errno) {
				t.Errorf("%s: %s ended with %v, want %v", name, attempt, unix.Errno(got), want)
			}
		}
		checkStatus(t, p.pid, name == probeAll)
		if name == probeAll {
			checkLimits(t, p.pid)
		}
		p.control.Close()
		<-p.done
	}
}

// checkStatus checks what the kernel says about all threads of a process.
func checkStatus(t *testing.T, pid int, filtered bool) {
	t.Helper()
	want := []string{
		"Uid:\t65533\t65533\t65533\t65533", "Gid:\t65533\t65533\t65533\t65533", "Groups:\t", "NoNewPrivs:\t1",
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		want = append(want, set+":\t0000000000000000")
	}
	if filtered {
		want = append(want, "Seccomp:\t2")
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads %q, %v", threads, err)
	}
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "Groups:") {
				lines[i] = strings.TrimRight(line, " ")
			}
		}
		for _, line := range want {
			if !slices.Contains(lines, line) {
				t.Errorf("%s does not have %q:\n%s", file, line, text)
			}
		}
	}
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(open) < 4 {
		t.Fatalf("descriptors %q, %v", open, err)
	}
	for _, fd := range open {
		if to, _ := os.Readlink(fd); to == "/etc/shadow" {
			t.Errorf("it has %s", to)
		}
	}
}

// checkLimits checks the limits of a process.
func checkLimits(t *testing.T, pid int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(text)) {
		got[strings.TrimSpace(line[:min(len(line), 26)])] = strings.Join(strings.Fields(line[min(len(line), 26):]), " ")
	}
	for name, want := range map[string]string{
		"Max core file size": "0 0 bytes", "Max file size": "0 0 bytes", "Max open files": "256 256 files",
		"Max locked memory": "0 0 bytes",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

// TestTheFirstThreadStaysAsItIs: what is taken from a thread does not stay taken from this process.
func TestTheFirstThreadStaysAsItIs(t *testing.T) {
	for range 10 {
		p, err := startProcess(probeSome, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.control.Close()
		<-p.done
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", os.Getpid()))
	if err != nil || !strings.Contains(string(text), "NoNewPrivs:\t0") {
		t.Errorf("the first thread is confined: %v\n%s", err, text)
	}
}
