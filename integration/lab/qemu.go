package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// qemu runs a host in a machine of QEMU. The machine is always emulated: a /dev/kvm that exists may still fail to run
// a stock kernel, which only a boot would show, and the limits of the tests could not suit both.
//
// -kernel and -initrd stand in for firmware and boot loader, with the files that the host root has in /boot: as on a
// real host, whose boot chain the agent never touches.
type qemu struct {
	host      *Host
	volumes   bool // whether its disk is a volume group
	multipath bool // whether its /home is on a disk with two paths
	btrfs     bool // whether /var is a disk of its own, with btrfs
	ports     chan *port
}

func (q *qemu) link() string { return "vm-" + q.host.Name }

// root returns the device of the host root.
func (q *qemu) root() string {
	if q.volumes {
		return volumeDevice("root")
	}
	return "/dev/vda"
}

func (q *qemu) fstab() string {
	lines := rootLine(q.root())
	if q.volumes {
		for _, v := range volumes[1:] {
			lines += fmt.Sprintf("%s /%s ext4 defaults 0 2\n", volumeDevice(v.name), v.name)
		}
	}
	if q.multipath {
		lines += pathsDevice + " /home ext4 defaults 0 2\n"
	}
	if q.btrfs {
		lines += btrfsLine
	}
	return lines
}

// limit allows for a boot on processors that are busy with other things: it takes a minute alone, and took eight
// beside two more machines.
func (q *qemu) limit() time.Duration { return 20 * time.Minute }

// dir is for what the machine needs besides its disk. The run's directory is too long a name for sockets.
func (q *qemu) dir() string { return q.host.disk + ".qemu" }

const (
	guestUnit    = "lab-guest.service"
	guestProgram = "/var/lib/lab/labguest" // in /var, which all roots share
)

// guestUnitText keeps the guest running in every root. The guest takes no part in an orderly shutdown: as a command
// that an administrator left running, it is killed with all other processes right before the switch.
const guestUnitText = `[Unit]
Description=Run commands for the lab
DefaultDependencies=no
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
ExecStart=` + guestProgram + ` %y
Restart=always
RestartSec=100ms
`

// furnish puts the guest on the disk, takes the kernel from it and unmounts it.
func (q *qemu) furnish(ctx context.Context) error {
	guest, err := guestBinary(ctx)
	if err != nil {
		return err
	}
	root := q.host.disk
	units := filepath.Join(root, "usr/lib/systemd/system")
	if err := writeFile(filepath.Join(units, guestUnit), guestUnitText); err != nil {
		return err
	}
	for _, dir := range []string{q.dir(), filepath.Join(units, "sysinit.target.wants"),
		filepath.Dir(filepath.Join(root, guestProgram))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink("../"+guestUnit, filepath.Join(units, "sysinit.target.wants", guestUnit)); err != nil {
		return err
	}
	for from, to := range map[string]string{
		guest:                             filepath.Join(root, guestProgram),
		filepath.Join(root, "vmlinuz"):    filepath.Join(q.dir(), "vmlinuz"),
		filepath.Join(root, "initrd.img"): filepath.Join(q.dir(), "initrd.img"),
	} {
		if out, err := exec.CommandContext(ctx, "cp", "--dereference", from, to).CombinedOutput(); err != nil {
			return fmt.Errorf("cannot copy %s: %w\n%s", from, err, out)
		}
	}
	if q.multipath {
		if err := makePaths(ctx, q.pathsImage(), root); err != nil {
			return err
		}
	}
	if q.volumes {
		return makeVolumes(ctx, q.host.image, root)
	}
	if q.btrfs {
		if err := makeBtrfs(ctx, q.btrfsImage(), filepath.Join(root, "var")); err != nil {
			return err
		}
	}
	return unix.Unmount(root, 0)
}

// patient keeps systemd from giving up on slow services and devices.
const patient = "systemd.default_timeout_start_sec=5min systemd.default_device_timeout_sec=15min"

func (q *qemu) command() (*exec.Cmd, error) {
	if err := ip("tuntap", "add", "dev", q.link(), "mode", "tap"); err != nil {
		return nil, err
	}
	args := []string{
		// One processor. With several, one may still run code that another has just patched: the emulator notices too
		// late, and a guest that loads live patches sometimes crashes.
		"-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "2048",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-monitor", "unix:" + filepath.Join(q.dir(), "monitor") + ",server=on,wait=off",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-kernel", filepath.Join(q.dir(), "vmlinuz"), "-initrd", filepath.Join(q.dir(), "initrd.img"),
		"-append", strings.Join(append([]string{"root=" + q.root(), "console=ttyS0", patient}, q.host.Cmdline...), " "),
		"-netdev", "tap,id=net,script=no,downscript=no,ifname=" + q.link(),
		"-device", fmt.Sprintf("virtio-net-pci,netdev=net,mac=52:54:00:77:00:%02x", q.host.number),
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci",
	}
	// The disk is removed with the run: its writes need not survive a crash of the machine that runs the lab.
	drive := []string{"-drive", "if=virtio,format=raw,cache=unsafe,discard=unmap,file=" + q.host.image}
	if log := q.host.log; log != nil {
		if err := log.renew(context.Background()); err != nil {
			return nil, err
		}
		// The log adds a header to every request. QEMU merges as many requests as fit without it, which would be an
		// I/O error.
		drive = append(log.args(), "-device", "virtio-blk-pci,drive=disk,write-cache=on,request-merging=off")
	}
	args = append(args, drive...)
	if q.multipath {
		args = append(args, pathsArgs(q.pathsImage())...)
	}
	if q.btrfs {
		args = append(args, "-drive", "if=virtio,format=raw,cache=unsafe,discard=unmap,file="+q.btrfsImage())
	}
	q.ports = make(chan *port, portCount)
	for i := range portCount + 1 {
		socket := portSocket(q.host.Name, i)
		if err := os.RemoveAll(socket); err != nil {
			return nil, err
		}
		args = append(args, "-chardev", fmt.Sprintf("socket,id=port%d,server=on,wait=off,path=%s", i, socket),
			"-device", fmt.Sprintf("virtserialport,chardev=port%d,name=lab.%d", i, i))
		if i != visitorPort {
			q.ports <- &port{socket: socket}
		}
	}
	// A machine has precedence over containers: they mostly wait. Starved, it misses deadlines that a host would meet.
	return exec.Command("nice", append([]string{"-n", precedence, "qemu-system-x86_64"}, args...)...), nil
}

const precedence = "-10"

// prefer gives all threads of a started machine precedence, where the kernel shares the processors between sessions
// first: a container has dozens of them.
func prefer(pid int) error {
	err := os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), []byte(precedence), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot give a machine precedence: %w", err)
	}
	return nil
}

func portSocket(host string, i int) string { return fmt.Sprintf("/run/lab/%s.qemu/port%d", host, i) }

const (
	// portCount is how many commands can run at once.
	portCount = 6
	// visitorPort is one more port, for another process than the one that runs the host: a port takes one connection.
	visitorPort = portCount
)

// VisitMachine runs a command in a machine that another process runs; inside its enclosure only.
func VisitMachine(ctx context.Context, name string, stdin io.Reader, args ...string) Result {
	return (&port{socket: portSocket(name, visitorPort)}).run(ctx, nil, stdin, args)
}

func (q *qemu) run(ctx context.Context, stdin io.Reader, args ...string) Result {
	ports := q.ports
	select {
	case p := <-ports:
		defer func() { ports <- p }()
		return p.run(ctx, q.host.ended, stdin, args)
	case <-ctx.Done():
		return Result{Code: -1, Stderr: ctx.Err().Error()}
	case <-q.host.ended:
		return Result{Code: -1, Stderr: errHostGone.Error()}
	}
}
