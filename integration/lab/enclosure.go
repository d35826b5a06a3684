package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// insideEnv is set for the process inside the enclosure only: the directory of the run.
const insideEnv = "UPDATECTL_LAB_RUN"

// lockFD is the run's lock in the process inside. Both processes hold it, so it is free only when both are gone.
const lockFD = 3

// Addr is the enclosure's own address, at which hosts reach what runs in it. HostName is its name in every host.
const (
	Addr     = "10.77.0.1"
	HostName = "registry.lab.test"
)

// Enter runs a function inside an enclosure and returns its exit code. It executes the calling program a second time
// with the same arguments: what the program does before it calls Enter is done twice. prepare runs first, outside,
// where the network is.
func Enter(prepare func(ctx context.Context) error, run func() int) int {
	if dir := os.Getenv(insideEnv); dir != "" {
		unix.CloseOnExec(lockFD)
		if err := furnish(); err != nil {
			fmt.Fprintf(os.Stderr, "lab: %v\n", err)
			return 1
		}
		return run()
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	code, err := enter(ctx, prepare)
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
		return 1
	}
	return code
}

func enter(ctx context.Context, prepare func(ctx context.Context) error) (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("cannot make namespaces and mounts: the lab must be run as root")
	}
	if err := Sweep(); err != nil {
		return 0, err
	}
	if err := prepare(ctx); err != nil {
		return 0, err
	}
	r, err := newRun()
	if err != nil {
		return 0, err
	}
	defer r.remove()

	// The kernel sends the death signal when the *thread* that started the child ends: this one must stay.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{r.lock}
	cmd.Env = append(os.Environ(), insideEnv+"="+r.dir, "TMPDIR=/tmp") // where tools see what tests make
	cgroup, err := os.Open(r.cgroup)
	if err != nil {
		return 0, fmt.Errorf("cannot open the run's cgroup: %w", err)
	}
	defer cgroup.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:   unix.SIGKILL,
		Cloneflags:  unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
		UseCgroupFD: true,
		CgroupFD:    int(cgroup.Fd()),
		// A new cgroup namespace has its root at the caller's cgroup: the child must be in the run's before it
		// unshares.
		Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP,
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("cannot enter namespaces: %w", err)
	}
	pid := []byte(strconv.Itoa(cmd.Process.Pid))
	if err := os.WriteFile(filepath.Join(r.dir, "pid"), pid, 0o644); err != nil {
		return 0, fmt.Errorf("cannot write the pid of the run: %w", err)
	}
	done := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
			_ = cmd.Process.Signal(unix.SIGTERM)
		case <-done:
			return
		}
		select {
		case <-time.After(patience):
			_ = cmd.Process.Kill()
		case <-done:
		}
	}()
	err = cmd.Wait()
	close(done)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("cannot wait for the enclosure: %w", err)
	}
	return cmd.ProcessState.ExitCode(), nil
}

// patience is how long the process inside may take to end before it is killed, and how long the lab waits for anything
// else that takes a moment.
const patience = 20 * time.Second

// furnish makes the enclosure look like a small machine of its own.
func furnish() error {
	if err := mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC); err != nil {
		return err
	}
	mounts := []struct{ kind, at string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"cgroup2", "/sys/fs/cgroup"}, // one hierarchy, even where the machine has several
		{"tmpfs", "/run"},             // the machine's systemd and D-Bus are out of reach
	}
	for _, m := range mounts {
		if err := mount(m.kind, m.at, m.kind, 0); err != nil {
			return err
		}
	}
	// nspawn expects the first where systemd is PID 1; /run/lab is ours.
	for _, dir := range []string{"/run/systemd/system", "/run/lab", "/run/lock"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cannot furnish the enclosure: %w", err)
		}
	}
	hosts := fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", Addr, HostName)
	if err := os.WriteFile("/run/lab/hosts", []byte(hosts), 0o644); err != nil {
		return fmt.Errorf("cannot furnish the enclosure: %w", err)
	}
	if err := mount("/run/lab/hosts", "/etc/hosts", "", unix.MS_BIND); err != nil {
		return err
	}
	if err := ip("link", "set", "lo", "up"); err != nil {
		return err
	}
	return ip("address", "add", Addr+"/32", "dev", "lo")
}

func mount(source, target, kind string, flags uintptr) error {
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		return fmt.Errorf("cannot mount %s: %w", target, err)
	}
	return nil
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot run ip %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// RunDir returns the directory of this run, below the cache; inside the enclosure only.
func RunDir() string { return os.Getenv(insideEnv) }
