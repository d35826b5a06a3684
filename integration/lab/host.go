package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Host is a Debian system run by its own systemd in a container with its own network: the mutable installation that
// the agent finds on a first host, on a disk of its own that can be written to and filled.
type Host struct {
	Name string
	Addr string // where its services are reached from the enclosure
	// Cmdline is what the boot loader gives the next boot besides: PID 1 of a container takes it from its arguments.
	Cmdline []string

	number  int
	dir     string // the run's directory for this host: disk and console log
	disk    string // the mounted disk, which is "/" of the host until the first switch
	cgroup  string
	console string
	nspawn  *exec.Cmd
	ended   chan struct{} // closed when the container is gone
}

// Options is what tests choose of a host.
type Options struct {
	// Name is the container's and the host's name, "lab" if empty, at most 12 characters.
	Name string
	// Tree is what the host is installed from, [V1] if empty.
	Tree string
	// Customise changes the host's tree, seen at root, before it boots.
	Customise func(root string) error
}

// hosts counts the hosts of this run: each has a network of its own.
var hosts int

// Prepare builds what hosts are booted from; to be called outside, where the network is.
func Prepare(ctx context.Context) error {
	tree, err := V1(ctx)
	if err != nil {
		return err
	}
	if _, err := disk(ctx, "disk", tree); err != nil {
		return err
	}
	if tree, err = Old(ctx); err != nil {
		return err
	}
	if _, err := disk(ctx, "disk", tree); err != nil {
		return err
	}
	if _, err = V2(ctx); err != nil {
		return err
	}
	if _, err = Tools(ctx); err != nil {
		return err
	}
	_, err = OldTools(ctx)
	return err
}

// Boot boots a host and waits until all its units are started; inside the enclosure only.
func Boot(ctx context.Context, o Options) (*Host, error) {
	if o.Name == "" {
		o.Name = "lab"
	}
	hosts++
	h := &Host{
		Name:   o.Name,
		Addr:   fmt.Sprintf("10.77.%d.2", hosts),
		number: hosts,
		dir:    filepath.Join(RunDir(), o.Name),
		disk:   filepath.Join("/run/lab", o.Name),
		cgroup: filepath.Join("/sys/fs/cgroup", "host-"+o.Name),
		ended:  make(chan struct{}),
	}
	h.console = filepath.Join(h.dir, "console.log")
	if err := h.install(ctx, o); err != nil {
		return nil, fmt.Errorf("cannot install host %s: %w", o.Name, err)
	}
	if err := h.start(); err != nil {
		return nil, fmt.Errorf("cannot start host %s: %w", o.Name, err)
	}
	if err := h.connect(); err != nil {
		h.Stop()
		return nil, fmt.Errorf("cannot connect host %s: %w", o.Name, err)
	}
	if err := h.awaitUp(); err != nil {
		err = fmt.Errorf("cannot boot host %s: %w\n%s", o.Name, err, h.Console())
		h.Stop()
		return nil, err
	}
	return h, nil
}

// install puts a copy of the base disk in place and makes the tree on it this host's own.
func (h *Host) install(ctx context.Context, o Options) error {
	for _, dir := range []string{h.dir, h.disk, h.cgroup} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if o.Tree == "" {
		var err error
		if o.Tree, err = V1(ctx); err != nil {
			return err
		}
	}
	base, err := disk(ctx, "disk", o.Tree)
	if err != nil {
		return err
	}
	image := filepath.Join(h.dir, "disk.img")
	if err := copySparse(ctx, base, image); err != nil {
		return err
	}
	// mount(8) makes a loop device that clears itself when nothing uses it any more, and this mount ends with the enclosure.
	if out, err := exec.CommandContext(ctx, "mount", "-o", "loop", image, h.disk).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot mount the disk: %w\n%s", err, out)
	}
	if err := h.personalise(ctx); err != nil {
		return err
	}
	if o.Customise != nil {
		return o.Customise(h.disk)
	}
	return nil
}

// personalise gives the tree what an installer gives a host and an image does not have.
func (h *Host) personalise(ctx context.Context) error {
	release, err := os.ReadFile(filepath.Join(h.disk, "usr/lib/os-release"))
	if err != nil {
		return err
	}
	release, _, _ = bytes.Cut(release, []byte("IMAGE_ID="))
	files := map[string]string{
		"usr/lib/os-release":           string(release),
		"usr/share/lab/version":        "host\n",
		"usr/share/lab/www/index.html": "lab mutable host\n",
		"etc/hostname":                 h.Name + "\n",
		"etc/hosts":                    fmt.Sprintf("127.0.0.1 localhost\n127.0.1.1 %s\n%s %s\n", h.Name, Addr, HostName),
		"etc/fstab":                    "# made by the installer\n/dev/vda1 / ext4 errors=remount-ro 0 1\n",
		"etc/systemd/network/10-lab.network": fmt.Sprintf("[Match]\nName=host0\n\n[Network]\nAddress=%s/24\nGateway=%s\n"+
			"LinkLocalAddressing=no\nIPv6AcceptRA=no\n", h.Addr, h.gateway()),
	}
	for name, text := range files {
		if err := writeFile(filepath.Join(h.disk, name), text); err != nil {
			return err
		}
	}
	// An image has neither of these, because every host needs its own.
	const identify = "systemd-machine-id-setup; if command -v ssh-keygen; then ssh-keygen -A; fi"
	if out, err := exec.CommandContext(ctx, "chroot", h.disk, "sh", "-ec", identify).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make the host's identity: %w\n%s", err, out)
	}
	return nil
}

func (h *Host) gateway() string { return fmt.Sprintf("10.77.%d.1", h.number) }

// start starts the container. Its PID 1 is a child of systemd-nspawn.
func (h *Host) start() error {
	log, err := os.Create(h.console)
	if err != nil {
		return err
	}
	defer log.Close()
	cgroup, err := os.Open(h.cgroup)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	h.nspawn = exec.Command("systemd-nspawn", "--quiet", "--boot", "--directory="+h.disk, "--machine="+h.Name,
		"--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
		"--network-veth", "--console=read-only")
	if len(h.Cmdline) > 0 {
		h.nspawn.Args = append(append(h.nspawn.Args, "--"), h.Cmdline...)
	}
	h.nspawn.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	h.nspawn.Stdout, h.nspawn.Stderr = log, log
	h.nspawn.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd()), Setsid: true}
	if err := h.nspawn.Start(); err != nil {
		return err
	}
	go func() {
		_ = h.nspawn.Wait()
		close(h.ended)
	}()
	return nil
}

// connect gives the enclosure's end of the veth pair its address. The host's end is configured by the host itself.
func (h *Host) connect() error {
	link := "ve-" + h.Name
	err := poll(patience, func() (bool, error) {
		if !h.running() {
			return false, errHostGone
		}
		_, err := os.Stat(filepath.Join("/sys/class/net", link))
		return err == nil, nil
	})
	if err != nil {
		return err
	}
	if err := ip("address", "add", h.gateway()+"/24", "dev", link); err != nil {
		return err
	}
	return ip("link", "set", link, "up")
}

var errHostGone = errors.New("the container has ended")

func (h *Host) running() bool {
	select {
	case <-h.ended:
		return false
	default:
		return true
	}
}

// leader is the pid of the container's PID 1. A full reboot changes it, a soft one does not.
func (h *Host) leader() (int, error) {
	if !h.running() {
		return 0, errHostGone
	}
	return leaderBelow(h.nspawn.Process.Pid)
}

// leaderBelow finds the container's PID 1 among the children of systemd-nspawn.
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

// Stop ends the host at once, as pulling its plug would, and forgets its disk.
func (h *Host) Stop() {
	if h.running() {
		_ = os.WriteFile(filepath.Join(h.cgroup, "cgroup.kill"), []byte("1"), 0)
	}
	select {
	case <-h.ended:
	case <-time.After(patience):
	}
	_ = unix.Unmount(h.disk, unix.MNT_DETACH)
	_ = os.Remove(filepath.Join(h.dir, "disk.img"))
}

// Console is what the host wrote to its console.
func (h *Host) Console() string {
	text, err := os.ReadFile(h.console)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Disk is where the enclosure sees the host's disk: the root of the mutable installation, with the /var it shares with
// all roots.
func (h *Host) Disk() string { return h.disk }
