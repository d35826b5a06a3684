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
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// nspawn runs a host in a container of systemd-nspawn.
type nspawn struct {
	host *Host
	cmd  *exec.Cmd
}

func (c *nspawn) link() string { return "ve-" + c.host.Name }

func (c *nspawn) fstab() string { return rootLine("/dev/vda1") }

func (c *nspawn) furnish(ctx context.Context) error {
	if c.host.log == nil {
		return nil
	}
	if err := unmountDisk(ctx, c.host.image, c.host.disk); err != nil {
		return err
	}
	return c.host.log.plug(ctx)
}

// limit allows for a boot, which takes about two seconds, and for a stop job that hangs, which takes 90.
func (c *nspawn) limit() time.Duration { return 5 * time.Minute }

func (c *nspawn) command() (*exec.Cmd, error) {
	c.cmd = exec.Command("systemd-nspawn", "--quiet", "--boot", "--directory="+c.host.disk, "--machine="+c.host.Name,
		"--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
		"--network-veth", "--console=read-only")
	if len(c.host.Cmdline) > 0 {
		c.cmd.Args = append(append(c.cmd.Args, "--"), c.host.Cmdline...)
	}
	c.cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	return c.cmd, nil
}

// leader returns the pid of the container's PID 1. A full reboot changes it, a soft one does not.
func (c *nspawn) leader() (int, error) {
	if !c.host.running() {
		return 0, errHostGone
	}
	return leaderBelow(c.cmd.Process.Pid)
}

// Deafen stops PID 1 of a container permanently, which nothing inside could do: it answers nobody any more.
func (h *Host) Deafen() error {
	c, ok := h.way.(*nspawn)
	if !ok {
		return errors.New("cannot deafen PID 1: the host is no container")
	}
	pid, err := c.leader()
	if err == nil {
		err = unix.Kill(pid, unix.SIGSTOP)
	}
	if err != nil {
		return fmt.Errorf("cannot deafen PID 1 of host %s: %w", h.Name, err)
	}
	return nil
}

// leaderBelow returns the pid of the container's PID 1, a child of systemd-nspawn.
func leaderBelow(nspawn int) (int, error) {
	children, err := children(nspawn)
	if err != nil {
		return 0, err
	}
	for _, pid := range children {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if ids, ok := strings.CutPrefix(line, "NSpid:"); ok && strings.HasSuffix(strings.TrimSpace(ids), "\t1") {
				return pid, nil
			}
		}
	}
	return 0, fmt.Errorf("cannot find the container's first process below %d", nspawn)
}

func children(pid int) ([]int, error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	var all []int
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that has ended
		}
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return nil, err
			}
			all = append(all, child)
		}
	}
	return all, nil
}

func (c *nspawn) run(ctx context.Context, stdin io.Reader, args ...string) Result {
	leader, err := c.leader()
	if err != nil {
		return Result{Code: -1, Stderr: err.Error()}
	}
	// The host's systemd and logind cannot place a command outside of its cgroups.
	dir := filepath.Join(c.host.cgroup, "payload", "lab-commands")
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

// nsenter returns a command in the namespaces of a container's first process. --root is needed: that process has
// another root after every soft reboot, and without it the command would see the first.
func nsenter(ctx context.Context, leader int, args ...string) *exec.Cmd {
	root := fmt.Sprintf("/proc/%d/root", leader)
	enter := []string{"--target", fmt.Sprint(leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
		"--root=" + root, "--wd=" + root}
	// env looks the command up in the host's PATH, not in the caller's; the environment is that of an administrator's
	// shell.
	env := []string{"/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "LANG=C.UTF-8"}
	return exec.CommandContext(ctx, "nsenter", append(append(enter, env...), args...)...)
}

// RunAwake runs an nsenter command and keeps sending it SIGCONT. Before a switch, systemd stops all remaining
// processes with SIGSTOP and then kills them; nsenter stops itself as soon as its child is stopped, and nobody outside
// of the container would ever continue it.
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
