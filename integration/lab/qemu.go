package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// qemu runs a host in a machine of QEMU. The machine is always emulated: a /dev/kvm that exists may still fail to run
// a stock kernel, which only a boot would show, and the limits of the tests could not suit both.
//
// Without a loader, -kernel and -initrd stand in for firmware and boot loader, with the files that the host root has in
// /boot.
type qemu struct {
	host      *Host
	loader    Loader
	installs  bool // whether QEMU starts the kernel once more, because the loader is not set up yet
	volumes   bool // whether its disk is a volume group
	multipath bool // whether its /home is on a disk with two paths
	btrfs     bool // whether /var is a disk of its own, with btrfs
	ports     chan *port
}

func (q *qemu) link() string { return "vm-" + q.host.Name }

// root returns the device of the host root.
func (q *qemu) root() string {
	switch {
	case q.volumes:
		return volumeDevice("root")
	case q.loader != NoLoader:
		return "/dev/vda2"
	}
	return "/dev/vda"
}

// loads reports whether firmware and a loader start the kernel.
func (q *qemu) loads() bool { return q.loader != NoLoader && !q.installs }

func (q *qemu) fstab() string {
	lines := rootLine(q.root())
	if q.volumes && q.loader == NoLoader {
		for _, v := range volumes[1:] {
			lines += fmt.Sprintf("%s /%s ext4 defaults 0 2\n", volumeDevice(v.name), v.name)
		}
	}
	if q.loader == SystemdBoot && !q.installs {
		lines += "/dev/vda1 /boot/efi vfat umask=0077 0 1\n"
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

func (q *qemu) monitor() string { return filepath.Join(q.dir(), "monitor") }

// tell gives QEMU's monitor a command and returns what it prints.
func (q *qemu) tell(command string) (string, error) {
	conn, err := net.Dial("unix", q.monitor())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return "", err
	}
	// The second prompt comes when the command is done.
	const prompt = "(qemu) "
	var said strings.Builder
	for buffer := make([]byte, 512); strings.Count(said.String(), prompt) < 2; {
		n, err := conn.Read(buffer)
		if err != nil {
			return "", fmt.Errorf("%w: %q", err, said.String())
		}
		said.Write(buffer[:n])
	}
	return said.String(), nil
}

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
	err = os.Symlink("../"+guestUnit, filepath.Join(units, "sysinit.target.wants", guestUnit))
	if err != nil && !errors.Is(err, os.ErrExist) { // the disk of a loader has it
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
	switch {
	case q.installs:
		return partition(ctx, q.host.image, root, q.loader, q.volumes)
	case q.volumes && !q.loads():
		return makeVolumes(ctx, q.host.image, root, 0, volumes)
	}
	if q.btrfs {
		if err := makeBtrfs(ctx, q.btrfsImage(), filepath.Join(root, "var")); err != nil {
			return err
		}
	}
	return unmountDisk(ctx, q.host.image, root)
}

// patient keeps systemd from giving up on slow services and devices.
const patient = "systemd.default_timeout_start_sec=5min systemd.default_device_timeout_sec=15min"

// words are what the lab adds to every kernel's command line besides the root.
const words = "console=ttyS0 " + patient

func (q *qemu) command() (*exec.Cmd, error) {
	if q.loads() && len(q.host.Cmdline) > 0 {
		return nil, fmt.Errorf("cannot add to the command line of host %s: its loader has it from the disk", q.host.Name)
	}
	if err := ip("tuntap", "add", "dev", q.link(), "mode", "tap"); err != nil {
		return nil, err
	}
	args := []string{
		// One processor. With several, one may still run code that another has just patched: the emulator notices too
		// late, and a guest that loads live patches sometimes crashes. No cmpxchg16b: an interrupt right after it can see
		// flags that were never computed, and the guest ends with a double fault once in some hours.
		"-accel", "tcg", "-cpu", "max,-cx16", "-smp", "1", "-m", "2048",
		"-nodefaults", "-no-user-config", "-display", "none",
		"-monitor", "unix:" + q.monitor() + ",server=on,wait=off",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-netdev", "tap,id=net,script=no,downscript=no,ifname=" + q.link(),
		"-device", fmt.Sprintf("virtio-net-pci,netdev=net,mac=52:54:00:77:00:%02x", q.host.number),
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci",
	}
	args = append(append(args, q.start()...), q.firmware()...)
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

// start returns what starts the kernel, at first and when the machine reboots.
func (q *qemu) start() []string {
	if q.loads() {
		return nil
	}
	return []string{
		"-no-reboot", "-kernel", filepath.Join(q.dir(), "vmlinuz"), "-initrd", filepath.Join(q.dir(), "initrd.img"),
		"-append", strings.Join(append([]string{"root=" + q.root(), words}, q.host.Cmdline...), " "),
	}
}

// firmware returns the firmware that is not QEMU's usual one, and where it keeps its variables.
func (q *qemu) firmware() []string {
	if q.loader != SystemdBoot {
		return nil
	}
	return []string{
		"-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
		"-drive", "if=pflash,format=raw,file=" + variables(q.host.image),
	}
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
