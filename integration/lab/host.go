package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Host is a Debian system with its own systemd, in a container or in a machine, and with its own network and disk.
// It boots into the host root: the mutable installation on which an administrator installs the agent.
type Host struct {
	Name string
	Addr string // at which the enclosure reaches its services
	// Cmdline is what is added to the next boot: to the kernel command line of a machine without a loader of its own,
	// and to the arguments of a container's PID 1.
	Cmdline []string

	number  int
	boots   int    // full reboots and the first boot
	dir     string // the run's directory for this host: disk and console log
	disk    string // where the disk is mounted: the "/" of a container until the first switch
	image   string // the disk's file
	cgroup  string
	console string
	way     way
	offset  int64         // of the host root on the disk
	bootID  string        // of the last boot that the lab waited for, where a loader starts it
	log     *diskLog      // nil when its writes are not logged
	panics  *panics       // of the kernel of this boot, nil for a container
	ended   chan struct{} // closed when the container or the machine is gone
}

// A way runs a host: in a container or in a machine.
type way interface {
	// link returns the name of the enclosure's end of the host's network.
	link() string
	// fstab returns what an installer writes into fstab for the disk.
	fstab() string
	// furnish adds what this way needs to the tree on the host's disk, right before the first boot.
	furnish(ctx context.Context) error
	// command returns the command that boots the host, writes its console to standard output, and ends when the host
	// does, with a full reboot, too.
	command() (*exec.Cmd, error)
	// run runs a command in the host, as root.
	run(ctx context.Context, stdin io.Reader, args ...string) Result
	// limit returns how long a boot may take.
	limit() time.Duration
}

// Kind selects how a host is run.
type Kind int

const (
	// Nspawn runs a host in a container: fast, and with the kernel of the machine that runs the lab.
	Nspawn Kind = iota
	// QEMU runs a host in an emulated machine: slow, and with the kernel of the host's tree.
	QEMU
)

// Options are what a test chooses for a host.
type Options struct {
	// Name is the container's and the host's name, "lab" if empty, at most 12 characters.
	Name string
	Kind Kind
	// Tree is what the host is installed from, [V1] if empty.
	Tree string
	// Customise changes the host's tree, mounted at root, before it boots.
	Customise func(root string) error
	// Loader starts the machine as firmware and boot loader do: the kernel, the initrd and the command line are those
	// that the host has on its disk. A reboot and a kernel that panics go through the loader again.
	Loader Loader
	// Cmdline is what is added to the first boot, see [Host]: without a loader only, which has its own configuration.
	Cmdline []string
	// Logged logs everything that the host writes to its disk, so that its power can be cut.
	Logged bool
	// Volumes puts the machine's /, /var and /home on logical volumes of their own, with a loader all on one. The tree
	// must have LVM.
	Volumes bool
	// Multipath puts the machine's /home on a disk with two paths. The tree must have multipath-tools.
	Multipath bool
	// Btrfs puts the machine's /var on a disk of its own with btrfs. [Btrfs] installs what that needs.
	Btrfs bool

	installs bool // the loader is not set up yet, see [loaderDisk]
}

// hosts counts the hosts of this run: each has a network of its own.
var hosts atomic.Int32

// Boot boots a host and waits until all its units are started; inside the enclosure only.
func Boot(ctx context.Context, o Options) (*Host, error) {
	if o.Name == "" {
		o.Name = "lab"
	}
	number := int(hosts.Add(1))
	h := &Host{
		Name:    o.Name,
		Cmdline: o.Cmdline,
		Addr:    fmt.Sprintf("10.77.%d.2", number),
		number:  number,
		dir:     filepath.Join(RunDir(), o.Name),
		disk:    filepath.Join("/run/lab", o.Name),
	}
	h.console, h.image = filepath.Join(h.dir, "console.log"), filepath.Join(h.dir, "disk.img")
	h.offset = o.rootOffset()
	if o.Kind == QEMU {
		h.way = &qemu{
			host: h, loader: o.Loader, installs: o.installs,
			volumes: o.Volumes, multipath: o.Multipath, btrfs: o.Btrfs,
		}
	} else {
		h.way = &nspawn{host: h}
	}
	if o.Logged {
		h.log = &diskLog{host: h}
	}
	if err := h.install(ctx, o); err != nil {
		return nil, fmt.Errorf("cannot install host %s: %w", o.Name, err)
	}
	if err := h.boot(); err != nil {
		h.Stop()
		return nil, err
	}
	return h, nil
}

// boot boots the host and waits until all its units are started and it has its address.
func (h *Host) boot() error {
	for _, step := range []func() error{h.disconnect, h.start, h.connect, h.awaitUp, h.awaitAddress, h.noteBoot} {
		if err := step(); err != nil {
			return fmt.Errorf("cannot boot host %s: %w\n%s", h.Name, err, h.Console())
		}
	}
	return nil
}

// install copies the disk of the tree and makes the copy this host's own.
func (h *Host) install(ctx context.Context, o Options) error {
	for _, dir := range []string{h.dir, h.disk} {
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
	if err := h.plugIn(ctx, o); err != nil {
		return err
	}
	if err := mountDisk(ctx, h.image, h.disk, h.offset); err != nil {
		return err
	}
	if err := h.personalise(ctx); err != nil {
		return err
	}
	if o.Customise != nil {
		if err := o.Customise(h.disk); err != nil {
			return err
		}
	}
	return h.way.furnish(ctx)
}

// personalise adds what an installer gives a host and an image does not have.
func (h *Host) personalise(ctx context.Context) error {
	release, err := os.ReadFile(filepath.Join(h.disk, "usr/lib/os-release"))
	if err != nil {
		return err
	}
	release, _, _ = bytes.Cut(release, []byte("IMAGE_ID="))
	files := map[string]string{
		"usr/lib/os-release":           string(release),
		"usr/share/lab/version":        "host\n",
		"usr/share/lab/www/index.html": "lab host root\n",
		"etc/hostname":                 h.Name + "\n",
		"etc/hosts": fmt.Sprintf("127.0.0.1 localhost\n127.0.1.1 %s\n%s %s\n", h.Name, Addr,
			HostName),
		"etc/fstab": "# made by the installer\n" + h.way.fstab(),
		"etc/systemd/network/10-lab.network": fmt.Sprintf("[Match]\nName=host0 en*\n\n[Network]\nAddress=%s/24\n"+
			"Gateway=%s\n"+
			"LinkLocalAddressing=no\nIPv6AcceptRA=no\n", h.Addr, h.Gateway()),
	}
	for name, text := range files {
		if err := writeFile(filepath.Join(h.disk, name), text); err != nil {
			return err
		}
	}
	// No image has these: every host needs its own.
	const identify = "systemd-machine-id-setup; if command -v ssh-keygen; then ssh-keygen -A; fi"
	if out, err := exec.CommandContext(ctx, "chroot", h.disk, "sh", "-ec", identify).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make the host's identity: %w\n%s", err, out)
	}
	return nil
}

// rootLine returns the line of fstab that an installer writes for the host root on a device.
func rootLine(device string) string { return device + " / ext4 errors=remount-ro 0 1\n" }

// Gateway returns the address of the enclosure's end of the host's network.
func (h *Host) Gateway() string { return fmt.Sprintf("10.77.%d.1", h.number) }

// start starts the host in a cgroup of its own, so that all of it can be killed at once. Every boot has a new one: a
// cgroup with others below it, such as that of the last boot, takes no process.
func (h *Host) start() error {
	h.boots++
	h.cgroup = fmt.Sprintf("/sys/fs/cgroup/host-%s-%d", h.Name, h.boots)
	if err := os.Mkdir(h.cgroup, 0o755); err != nil {
		return err
	}
	cgroup, err := os.Open(h.cgroup)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	cmd, err := h.way.command()
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd()), Setsid: true}
	log, err := os.OpenFile(h.console, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if _, ok := h.way.(*qemu); ok {
		kill := filepath.Join(h.cgroup, "cgroup.kill")
		h.panics = &panics{log: log, ended: func() { _ = os.WriteFile(kill, []byte("1"), 0) }}
		cmd.Stdout = h.panics
	}
	if err := cmd.Start(); err != nil {
		log.Close()
		return err
	}
	ended := make(chan struct{})
	h.ended = ended
	go func() {
		_ = cmd.Wait()
		log.Close()
		close(ended)
	}()
	if h.panics != nil {
		return prefer(cmd.Process.Pid)
	}
	return nil
}

// disconnect removes the network link of the last boot. When the host was killed the link may outlive it for a moment,
// and would be taken for the new one.
func (h *Host) disconnect() error {
	link := filepath.Join("/sys/class/net", h.way.link())
	if _, err := os.Stat(link); err != nil {
		return nil
	}
	err := ip("link", "delete", h.way.link())
	if _, gone := os.Stat(link); gone != nil {
		return nil
	}
	return err
}

// connect gives the enclosure's end of the host's network its address. The host configures the other end.
func (h *Host) connect() error {
	err := poll(startTime, func() (bool, error) {
		if err := h.Alive(); err != nil {
			return false, err
		}
		_, err := os.Stat(filepath.Join("/sys/class/net", h.way.link()))
		return err == nil, nil
	})
	if err != nil {
		return err
	}
	if err := ip("address", "add", h.Gateway()+"/24", "dev", h.way.link()); err != nil {
		return err
	}
	return ip("link", "set", h.way.link(), "up")
}

// SetLink connects the host's network, or cuts it off.
func (h *Host) SetLink(up bool) error {
	state := "down"
	if up {
		state = "up"
	}
	return ip("link", "set", h.way.link(), state)
}

// Stop ends the host at once, as if its plug was pulled, and removes its disk.
func (h *Host) Stop() {
	h.cutPower()
	_ = unix.Unmount(h.disk, unix.MNT_DETACH)
	if h.log != nil {
		h.log.unplug()
	}
	disks, _ := filepath.Glob(filepath.Join(h.dir, "*"))
	for _, file := range disks {
		if file != h.console {
			_ = os.Remove(file)
		}
	}
}

// cutPower ends the host and what runs in it.
func (h *Host) cutPower() {
	if h.ended == nil { // never started
		return
	}
	if h.log != nil {
		h.log.cut()
	}
	if h.running() {
		_ = os.WriteFile(filepath.Join(h.cgroup, "cgroup.kill"), []byte("1"), 0)
	}
	select {
	case <-h.ended:
	case <-time.After(gone):
	}
}

// Console returns what the host wrote to its console.
func (h *Host) Console() string {
	text, err := os.ReadFile(h.console)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Disk returns where the enclosure sees the disk of a container: the host root, with the /var that all roots share.
func (h *Host) Disk() string { return h.disk }
