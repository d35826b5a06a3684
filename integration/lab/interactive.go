package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Visit reaches into an enclosure from outside: a person works with a host that another process runs.
type Visit struct {
	pid int // the enclosure's first process
}

// FindRun returns the running enclosure whose directory has a file of this name.
func FindRun(mark string) (*Visit, error) {
	marks, err := filepath.Glob(filepath.Join(runsDir(), runPrefix+"*", mark))
	if err != nil {
		return nil, err
	}
	for _, path := range marks {
		dir := filepath.Dir(path)
		if lock, err := lockFile(filepath.Join(dir, "lock"), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			lock.Close() // nobody holds it: a killed run left it behind
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			return nil, fmt.Errorf("cannot read a run's process: %w", err)
		}
		pid, err := strconv.Atoi(string(text))
		if err != nil {
			return nil, fmt.Errorf("cannot read a run's process: %w", err)
		}
		return &Visit{pid}, nil
	}
	return nil, fmt.Errorf("cannot find a running %s", mark)
}

// Enclosure returns a command inside the enclosure, where the registry and the services of the hosts can be reached.
func (v *Visit) Enclosure(ctx context.Context, args ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(v.pid), "--mount", "--net", "--ipc", "--pid", "--wd=."}
	return exec.CommandContext(ctx, "nsenter", append(append(enter, "--"), args...)...)
}

// IsMachine reports whether a host is a machine, in which [VisitMachine] runs commands.
func (v *Visit) IsMachine(name string) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", v.pid, portSocket(name, visitorPort)))
	return err == nil
}

// Host returns a command in a host that is a container.
func (v *Visit) Host(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	all, err := children(v.pid)
	if err != nil {
		return nil, err
	}
	for _, pid := range all {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !strings.Contains(string(cmdline), "\x00--machine="+name+"\x00") {
			continue
		}
		leader, err := leaderBelow(pid)
		if err != nil {
			return nil, err
		}
		return nsenter(ctx, leader, args...), nil
	}
	return nil, fmt.Errorf("cannot find host %s", name)
}

// End asks the enclosure to end and waits until it has; its outer process kills it if it takes too long.
func (v *Visit) End() error {
	fd, err := unix.PidfdOpen(v.pid, 0)
	if err != nil {
		return fmt.Errorf("cannot end the run: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return fmt.Errorf("cannot end the run: %w", err)
	}
	return poll(2*patience, func() (bool, error) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(fds, 0)
		return n > 0, nil
	})
}
