//go:build linux && amd64

// Package fault runs a program of a host and has the kernel fail one of its steps, or kills it there.
//
// A step is a system call that touches the disk or the mounts. The program is the real one, without a seam: a seccomp
// filter sends each such call to this process (seccomp_unotify(2)), which names it, counts it and answers it, with "go
// on" or with an error, before the kernel has done anything. Calls of all threads are counted together, so that a step
// is the same one in every run. What is injected on paper only, by the way: nothing is written to a disk that fails.
//
// The test binary itself is the program that does this, under the name [Name]: it is copied into the host and needs
// nothing there.
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

// Name is the name under which a program calls [Main]:
//
//	labfault SPEC COMMAND...
//
// SPEC is a file with a [Spec]; beside it, as SPEC.log, the steps are written down. The exit code is the command's, or
// 128 and the number of the signal that ended it.
const Name = "labfault"

// Spec says what is to go wrong. An empty one only has the steps written down.
type Spec struct {
	// Step is the name of the step, as the log has it, and Nth which of them, from 1.
	Step string `json:"step,omitempty"`
	Nth  int    `json:"nth,omitempty"`
	// Do is "KILL" or the error that the call returns, such as "ENOSPC".
	Do string `json:"do,omitempty"`
	// Stays: from then on everything that this error is about fails with it, as on a disk that is full or read-only.
	Stays bool `json:"stays,omitempty"`
}

// Step is a line of the log.
type Step struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
	// Hit tells that this call was the one that did not happen.
	Hit bool `json:"hit,omitempty"`
}

// ReadLog reads the steps that a run wrote down.
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

// childEnv tells the second process, which becomes the command, that it is the one.
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
	// A program that is killed, or times out, with this one must not go on unobserved.
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
