package hostroot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/updatectl/updatectl/durable"
)

// Program is a program that somebody runs in the host root, with the environment of the caller.
type Program struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Programs runs programs in the host root of this machine.
type Programs struct{}

// Run runs a program in the host root, which is mounted at from, and returns its exit code as a shell does: 127 if
// there is no such program, 128 and the number of the signal that ended it. If the host root runs ("/"), the program
// runs as any other. When ctx ends, it gets a SIGTERM, and is waited for all the same: it may be in the middle of
// something.
func (Programs) Run(ctx context.Context, from string, p Program) (code int, err error) {
	if from == "/" {
		return p.run(ctx, &syscall.SysProcAttr{})
	}
	err = Do(from, func(r Root) error {
		done, err := r.keepServicesOut()
		if err != nil {
			return err
		}
		code, err = p.run(ctx, &syscall.SysProcAttr{Chroot: r.dir})
		return errors.Join(err, done())
	})
	return code, err
}

func (p Program) run(ctx context.Context, attributes *syscall.SysProcAttr) (int, error) {
	cmd := exec.CommandContext(ctx, "/usr/bin/env", append([]string{"--"}, p.Args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.Stdin, p.Stdout, p.Stderr
	cmd.SysProcAttr = attributes
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if attributes.Chroot != "" {
		cmd.Dir, cmd.Env = "/", inside(os.Environ())
	}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return 0, fmt.Errorf("cannot run %s: %w", p.Args[0], err)
	}
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// outside are variables that belong to a session or a service of the running root.
var outside = []string{"DBUS_SESSION_BUS_ADDRESS", "INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_FDNAMES", "LISTEN_FDS",
	"LISTEN_PID", "NOTIFY_SOCKET", "OLDPWD", "PATH", "PWD", "SYSTEMD_OFFLINE", "TMPDIR", "XDG_RUNTIME_DIR"}

// inside returns an environment for the host root: without what leads out of it.
func inside(caller []string) []string {
	env := []string{"PATH=" + searchPath, "SYSTEMD_OFFLINE=1"}
	for _, v := range caller {
		name, _, _ := strings.Cut(v, "=")
		if !slices.Contains(outside, name) {
			env = append(env, v)
		}
	}
	return env
}

// Debian's packages ask this program whether they may start a service. Those of the host root do not run: another root
// does.
const (
	policy       = "/usr/sbin/policy-rc.d"
	policyTarget = "/run/updatectl-policy-rc.d"
	policyText   = "#!/bin/sh\nexit 101 # updatectl: another root runs, whose services these are not\n"
	policyAsker  = "/usr/sbin/invoke-rc.d"
)

// keepServicesOut keeps packages of the host root from starting services, unless the host has a rule of its own for
// that; done undoes it. What a power cut leaves behind is a link to nowhere, which no package follows.
func (r Root) keepServicesOut() (done func() error, err error) {
	at := r.Path(policy)
	if _, err := os.Stat(r.Path(policyAsker)); err != nil {
		return func() error { return nil }, nil
	}
	if target, err := os.Readlink(at); err == nil && target == policyTarget {
		if err := os.Remove(at); err != nil {
			return nil, err
		}
	}
	if err := durable.WriteFile(r.Path(policyTarget), []byte(policyText), 0o755); err != nil {
		return nil, err
	}
	err = os.Symlink(policyTarget, at)
	if errors.Is(err, fs.ErrExist) {
		return func() error { return nil }, nil
	}
	return func() error { return os.Remove(at) }, err
}
