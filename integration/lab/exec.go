package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Result is how a command in a host ended.
type Result struct {
	Stdout, Stderr string
	// Code is the exit code: 128 + the signal's number for a command that a signal ended (a soft reboot kills all
	// processes), and -1 with the reason in Stderr for one that could not be started.
	Code int
}

func (r Result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
}

// Run runs a command in the host, as root, and waits for it.
func (h *Host) Run(ctx context.Context, args ...string) Result { return h.RunInput(ctx, nil, args...) }

// RunInput is Run with standard input.
func (h *Host) RunInput(ctx context.Context, stdin io.Reader, args ...string) Result {
	return h.way.run(ctx, stdin, args...)
}

// Sh runs a shell script in the host.
func (h *Host) Sh(ctx context.Context, script string) Result {
	return h.Run(ctx, "/bin/sh", "-ec", script)
}

// CopyIn copies a file, or a directory with its contents, to a path in the host. It keeps owners and modes.
func (h *Host) CopyIn(ctx context.Context, from, to string) error {
	err := Copy(ctx, from, to, func(ctx context.Context, stdin io.Reader, args ...string) error {
		if r := h.RunInput(ctx, stdin, args...); r.Code != 0 {
			return fmt.Errorf("cannot unpack: %s", r)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot copy %s into host %s: %w", from, h.Name, err)
	}
	return nil
}

// Copy copies a file, or a directory with its contents, to a path where run runs a command: through a pipe, because a
// host does not see the caller's files. options are more options of the tar that unpacks.
func Copy(ctx context.Context, from, to string, run func(ctx context.Context, stdin io.Reader, args ...string) error,
	options ...string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	what, dir := []string{"--directory=" + from, "."}, to
	if !info.IsDir() {
		rename := fmt.Sprintf("--transform=flags=r;s,^%s$,%s,", filepath.Base(from), filepath.Base(to))
		what, dir = []string{"--directory=" + filepath.Dir(from), rename, filepath.Base(from)}, filepath.Dir(to)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop() // ends the packer when unpacking fails
	pack := exec.CommandContext(ctx, "tar", append([]string{"--create", "--xattrs", "--xattrs-include=*", "--acls"},
		what...)...)
	var stderr bytes.Buffer
	pack.Stderr = &stderr
	pipe, err := pack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := pack.Start(); err != nil {
		return err
	}
	const unpack = `dir=$1; shift; mkdir -p "$dir"
exec tar --extract --preserve-permissions --numeric-owner --xattrs --xattrs-include='*' --acls --directory="$dir" "$@"`
	if err := run(ctx, pipe, append([]string{"/bin/sh", "-ec", unpack, "copy", dir}, options...)...); err != nil {
		return err
	}
	if err := pack.Wait(); err != nil {
		return fmt.Errorf("cannot pack: %w\n%s", err, stderr.Bytes())
	}
	return nil
}

// WriteFile writes a file in the host.
func (h *Host) WriteFile(path, text string, mode os.FileMode) error {
	const write = `mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"`
	r := h.RunInput(context.Background(), strings.NewReader(text), "/bin/sh", "-ec", write, "write", path,
		fmt.Sprintf("%o", mode.Perm()))
	if r.Code != 0 {
		return fmt.Errorf("cannot write %s in host %s: %s", path, h.Name, r)
	}
	return nil
}

// Journal returns the host's journal since its last full reboot, over all soft reboots.
func (h *Host) Journal(ctx context.Context) string {
	return h.Run(ctx, "journalctl", "--no-pager", "--output=short-precise", "--merge").Stdout
}

// FailedUnits returns the names of the units that have failed.
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
