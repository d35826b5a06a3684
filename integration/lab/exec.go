package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Result is how a command in a host ended.
type Result struct {
	Stdout, Stderr string
	// Code is the exit code, 128 + the signal's number for a command that a signal ended (a soft reboot kills what it
	// finds), and -1 with the reason in Stderr for one that could not be started.
	Code int
}

func (r Result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
}

// Run runs a command in the host, as root, and waits for it.
func (h *Host) Run(ctx context.Context, args ...string) Result { return h.RunInput(ctx, nil, args...) }

// RunInput is Run with standard input.
func (h *Host) RunInput(ctx context.Context, stdin io.Reader, args ...string) Result {
	leader, err := h.leader()
	if err != nil {
		return Result{Code: -1, Stderr: err.Error()}
	}
	// A command outside of the host's cgroups would be one that systemd and logind there cannot place.
	dir := filepath.Join(h.cgroup, "payload", "lab-commands")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return Result{Code: -1, Stderr: err.Error()}
	}
	cgroup, err := os.Open(dir)
	if err != nil {
		return Result{Code: -1, Stderr: err.Error()}
	}
	defer cgroup.Close()
	cmd := nsenter(ctx, leader, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd()), Pdeathsig: unix.SIGKILL}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err = RunAwake(cmd)
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: exitCode(cmd.ProcessState)}
	if r.Code < 0 {
		r.Stderr += err.Error()
	}
	return r
}

// Sh runs a shell script in the host.
func (h *Host) Sh(ctx context.Context, script string) Result {
	return h.Run(ctx, "/bin/sh", "-ec", script)
}

// nsenter is a command in the namespaces of a container's first process. --root matters: that process's root is another
// one after every soft reboot, and without it the command would see the first.
func nsenter(ctx context.Context, leader int, args ...string) *exec.Cmd {
	root := fmt.Sprintf("/proc/%d/root", leader)
	enter := []string{"--target", fmt.Sprint(leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
		"--root=" + root, "--wd=" + root}
	// env looks the command up in the host's PATH, not the caller's; what the shell of an administrator has
	env := []string{"/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "LANG=C.UTF-8"}
	return exec.CommandContext(ctx, "nsenter", append(append(enter, env...), args...)...)
}

// RunAwake runs an nsenter command, and wakes it up over and over. Before a switch, systemd stops all processes that are
// left with SIGSTOP, then ends them; nsenter stops itself as soon as it sees its child stopped, and outside of the
// container nobody continues it: without this it would sleep for ever.
func RunAwake(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(pollInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = cmd.Process.Signal(unix.SIGCONT)
			case <-done:
				return
			}
		}
	}()
	defer close(done)
	return cmd.Wait()
}

func exitCode(state *os.ProcessState) int {
	if state == nil {
		return -1
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// CopyIn copies a file, or a directory with all that is in it, to a path in the host. Owners and modes stay as they are.
func (h *Host) CopyIn(ctx context.Context, from, to string) error {
	leader, err := h.leader()
	if err != nil {
		return err
	}
	target := filepath.Join(fmt.Sprintf("/proc/%d/root", leader), to)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("cannot copy into host %s: %w", h.Name, err)
	}
	if out, err := exec.CommandContext(ctx, "cp", "-aT", from, target).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot copy into host %s: %w\n%s", h.Name, err, out)
	}
	return nil
}

// WriteFile writes a file in the host.
func (h *Host) WriteFile(path, text string, mode os.FileMode) error {
	leader, err := h.leader()
	if err != nil {
		return err
	}
	target := filepath.Join(fmt.Sprintf("/proc/%d/root", leader), path)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("cannot write into host %s: %w", h.Name, err)
	}
	if err := os.WriteFile(target, []byte(text), mode); err != nil {
		return fmt.Errorf("cannot write into host %s: %w", h.Name, err)
	}
	return os.Chmod(target, mode)
}

// Journal is the host's journal of this boot of the kernel, which all soft reboots are part of.
func (h *Host) Journal(ctx context.Context) string {
	return h.Run(ctx, "journalctl", "--no-pager", "--output=short-precise", "--merge").Stdout
}

// FailedUnits are the names of the units that have failed.
func (h *Host) FailedUnits(ctx context.Context) ([]string, error) {
	r := h.Run(ctx, "systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager")
	if r.Code != 0 {
		return nil, fmt.Errorf("cannot list failed units: %s", r)
	}
	var names []string
	for line := range strings.Lines(r.Stdout) {
		if fields := strings.Fields(line); len(fields) > 0 {
			names = append(names, fields[0])
		}
	}
	return names, nil
}
