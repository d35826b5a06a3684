// Package hostroot answers how the host root is changed while an image root runs. It promises that the host root is
// writable only for what is done there, that what is mounted for that is seen nowhere else, and that no program that is
// run there reaches the systemd of the running root.
package hostroot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/mount"
)

// Root is the host root, writable, as [Do] shows it.
type Root struct{ dir string }

// At returns the tree at a directory as a root: programs are run in it with chroot(2). Do makes the real one.
func At(dir string) Root { return Root{dir} }

// Path returns where a file of the root lies, for the function that [Do] calls.
func (r Root) Path(p string) string { return filepath.Join(r.dir, p) }

// Do calls a function with the host root, which is mounted at from, "/" if it runs. Its own file systems for /boot,
// /efi, /var and /opt are mounted in it, as its fstab says. The function must not go on in another goroutine.
func Do(from string, do func(Root) error) error {
	at := filepath.Join(switcher.RunDir, "host-root")
	if err := os.MkdirAll(at, 0o700); err != nil {
		return fmt.Errorf("cannot make the mount point of the host root: %w", err)
	}
	return mount.Apart(func() error {
		r := Root{at}
		if err := r.join(from); err != nil {
			return fmt.Errorf("cannot open the host root: %w", err)
		}
		return do(r)
	})
}

// join mounts the host root with all that its programs need.
func (r Root) join(from string) error {
	var trees []*mount.Tree // of the running root, taken before anything is covered
	defer func() {
		for _, t := range trees {
			t.Close()
		}
	}()
	points := []string{"/dev", "/proc", "/sys"}
	for _, p := range points {
		tree, err := mount.Clone(p, true)
		if err != nil {
			return err
		}
		trees = append(trees, tree)
	}
	shared, err := sharedRun()
	if err != nil {
		return err
	}
	for _, s := range shared {
		trees = append(trees, s.tree)
	}
	host, err := mount.Clone(from, false)
	if err != nil {
		return err
	}
	defer host.Close()
	if err := errors.Join(host.SetReadOnly(false), host.Attach(r.dir)); err != nil {
		return err
	}
	if err := r.attachUsr(from); err != nil {
		return err
	}
	for i, p := range points {
		if err := trees[i].Attach(r.Path(p)); err != nil {
			return err
		}
	}
	if err := r.makeTemporary(shared); err != nil {
		return err
	}
	return r.mountOwn()
}

// attachUsr attaches the /usr of the host root, where that is a file system of its own: without it, nothing runs there.
func (r Root) attachUsr(from string) error {
	usr := filepath.Join(from, "usr")
	if separate, err := mount.IsMountPoint(usr); err != nil || !separate {
		return err
	}
	tree, err := mount.Clone(usr, false)
	if err != nil {
		return err
	}
	defer tree.Close()
	return errors.Join(tree.SetReadOnly(false), tree.Attach(r.Path("/usr")))
}

// runDirs are the directories of /run that the programs of the host root need: what udev knows of disks, and how names
// of the network are resolved. Without the rest, they find no systemd: what their packages ask it for concerns the host
// root, which does not run.
var runDirs = []string{"udev", "lvm", "cryptsetup", "systemd/resolve", "resolvconf", "NetworkManager", "connman"}

// runDir is one of these directories that the running root has.
type runDir struct {
	name string
	tree *mount.Tree
}

func sharedRun() (dirs []runDir, err error) {
	for _, name := range runDirs {
		if _, err := os.Stat(filepath.Join("/run", name)); err != nil {
			continue
		}
		tree, err := mount.Clone(filepath.Join("/run", name), false)
		if err != nil {
			return dirs, err
		}
		dirs = append(dirs, runDir{name, tree})
	}
	return dirs, nil
}

// makeTemporary mounts an empty /tmp, and a /run with no more than some directories of the running root.
func (r Root) makeTemporary(shared []runDir) error {
	for p, mode := range map[string]string{"/run": "0755", "/tmp": "1777"} {
		tree, err := mount.Tmpfs(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, [2]string{"mode", mode})
		if err != nil {
			return err
		}
		err = tree.Attach(r.Path(p))
		tree.Close()
		if err != nil {
			return err
		}
	}
	for _, s := range shared {
		dir := r.Path(filepath.Join("/run", s.name))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := s.tree.Attach(dir); err != nil {
			return err
		}
	}
	return os.MkdirAll(r.Path("/run/lock"), 0o755)
}

// maxFstab bounds the fstab of the host root, in bytes.
const maxFstab = 1 << 20

// mountTime is how long the file systems of the host root may take to be mounted, each.
const mountTime = time.Minute

// mountOwn mounts the host root's own file systems.
func (r Root) mountOwn() error {
	text, err := readBounded(r.Path("/etc/fstab"), maxFstab)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, point := range ownPoints(string(text)) {
		ctx, cancel := context.WithTimeout(context.Background(), mountTime)
		_, err := r.Run(ctx, nil, "mount", point.path)
		cancel()
		if err != nil && !point.optional {
			return fmt.Errorf("cannot mount %s of the host root: %w", point.path, err)
		}
	}
	return nil
}

// ownDirs are what a host root is made of. What else is mounted in it is data. Its /usr is there already.
var ownDirs = []string{"/boot", "/boot/efi", "/efi", "/var", "/opt"}

// bootDirs are mounted even if nothing mounts them at a boot (noauto).
var bootDirs = []string{"/boot", "/boot/efi", "/efi"}

// ownPoint is a mount point of the host root, and whether it may be missing.
type ownPoint struct {
	path     string
	optional bool
}

// ownPoints returns the mount points in an fstab(5) that belong to the host root itself, those above others first.
func ownPoints(fstab string) []ownPoint {
	var points []ownPoint
	for line := range strings.Lines(fstab) {
		fields := strings.Fields(line)
		if len(fields) < 4 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		point, kind, options := filepath.Clean(fields[1]), fields[2], strings.Split(fields[3], ",")
		waits := slices.Contains(options, "noauto") && !slices.Contains(bootDirs, point)
		if slices.Contains(ownDirs, point) && !waits && !isRemote(fields[0], kind, options) {
			points = append(points, ownPoint{point, slices.Contains(options, "nofail")})
		}
	}
	slices.SortStableFunc(points, func(a, b ownPoint) int {
		return strings.Count(a.path, "/") - strings.Count(b.path, "/")
	})
	return slices.Compact(points)
}

// isRemote reports whether a file system of fstab(5) needs a server, or is made of nothing but memory.
func isRemote(source, kind string, options []string) bool {
	return slices.Contains(options, "_netdev") || strings.Contains(source, ":/") || strings.HasPrefix(source, "//") ||
		slices.Contains([]string{"tmpfs", "nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p", "virtiofs", "swap"}, kind)
}

// readBounded reads a file of the host root that is no larger than limit.
func readBounded(p string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", p, limit)
	}
	return text, err
}

// maxOutput bounds what is kept of the output of a program: its end, in bytes.
const maxOutput = 16 << 10

// Run runs a program of the root in it, and returns the end of what it wrote. The variables are added to an environment
// with a usual PATH. When the context ends, it is killed with its children. The error has the end of the output.
func (r Root) Run(ctx context.Context, variables []string, args ...string) (output string, err error) {
	var out tail
	cmd := r.Command(ctx, variables, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it was not done in time: %w", context.Cause(ctx))
		}
		return out.String(), fmt.Errorf("%s failed: %w: %s", args[0], err, lastLines(out.String()))
	}
	return out.String(), nil
}

// killTime is how long a program may take to end after it was killed.
const killTime = 10 * time.Second

// searchPath is the PATH of programs in the host root.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Command returns a program of the root that runs in it, as [Root.Run] runs it, with standard input and output to be
// set.
func (r Root) Command(ctx context.Context, variables []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/usr/bin/env", append([]string{"--"}, args...)...)
	cmd.Dir = "/"
	cmd.Env = append([]string{
		"PATH=" + searchPath, "HOME=/root", "LC_ALL=C.UTF-8",
	}, variables...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.dir, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killTime
	return cmd
}

// lastLines returns the last lines of an output, for an error.
func lastLines(output string) string {
	const most = 5
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

// tail keeps the end of what is written to it.
type tail struct{ bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	t.Buffer.Write(p[max(0, len(p)-maxOutput):])
	if extra := t.Len() - maxOutput; extra > 0 {
		t.Next(extra)
	}
	return len(p), nil
}
