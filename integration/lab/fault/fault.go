//go:build linux && amd64

// Package fault runs a program in a host and lets one of its steps fail, or kills it there.
//
// A step is a system call that touches the disk or the mounts. The program is not modified: a seccomp filter sends
// each such call to this process (seccomp_unotify(2)), which names it, counts it and answers, before the kernel has
// done anything, with "continue" or with an error. The calls of all threads are counted together, so that a step is
// the same one in every run. No disk really fails: the error replaces the call.
//
// The test binary itself is the injector, under the name [Name]: it is copied into the host and needs nothing there.
package fault

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Name is the name under which the test binary calls [Main]:
//
//	labfault SPEC COMMAND...
//
// SPEC is a file with a [Spec]; the steps are logged beside it, as SPEC.log. The exit code is the command's, or 128 +
// the number of the signal that ended it.
const Name = "labfault"

// Spec says what fails. An empty one only logs the steps.
type Spec struct {
	// Step is the name of the step in the log, and Nth which occurrence of it, from 1.
	Step string `json:"step,omitempty"`
	Nth  int    `json:"nth,omitempty"`
	// Do is "KILL" or the error that the call returns, such as "ENOSPC".
	Do string `json:"do,omitempty"`
	// Stays keeps the error: from then on every step of the same kind fails, as on a disk that is full or read-only.
	Stays bool `json:"stays,omitempty"`
}

// Step is a line of the log.
type Step struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
	// Hit marks the call that was replaced by the error.
	Hit bool `json:"hit,omitempty"`
}

// ReadLog parses the steps that a run logged.
func ReadLog(text string) ([]Step, error) {
	var steps []Step
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		var s Step
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return nil, fmt.Errorf("cannot read the log of steps: %w", err)
		}
		steps = append(steps, s)
	}
	return steps, lines.Err()
}

// childEnv is set for the second process, which becomes the command.
const childEnv = "LABFAULT_CHILD"

// Main runs a command and returns its exit code.
func Main(args []string) int {
	if len(args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: labfault SPEC COMMAND...")
		return 2
	}
	if os.Getenv(childEnv) != "" {
		fmt.Fprintf(os.Stderr, "labfault: %v\n", become(args[2:]))
		return 126
	}
	code, err := run(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "labfault: %v\n", err)
		return 125
	}
	return code
}

func run(args []string) (int, error) {
	text, err := os.ReadFile(args[1])
	if err != nil {
		return 0, err
	}
	s := &supervisor{seen: map[string]int{}}
	if err := json.Unmarshal(text, &s.spec); err != nil {
		return 0, err
	}
	if s.spec.Do != "" && s.spec.Do != "KILL" {
		if s.errno = errnos[s.spec.Do]; s.errno == 0 {
			return 0, fmt.Errorf("unknown error %q", s.spec.Do)
		}
	}
	if s.log, err = os.Create(args[1] + ".log"); err != nil {
		return 0, err
	}
	defer s.log.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	cmd := exec.Command("/proc/self/exe", args[1:]...)
	cmd.Args[0] = Name
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs} // as listenerSocket
	// When this process is killed or times out, the command must not continue unobserved.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	theirs.Close()
	s.pid = cmd.Process.Pid
	if s.listener, err = receiveFD(pair[0]); err == nil {
		go s.serve()
	}
	werr := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err != nil:
		return 0, err
	case errors.As(werr, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, werr
}
