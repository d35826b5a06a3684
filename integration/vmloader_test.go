//go:build lab && vm

package integration

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

func init() { rarely = append(rarely, lab.GRUBTree, lab.SystemdBootTree) }

// loaderCases are the loaders, and how an administrator has each of them start the second kernel once.
var loaderCases = []struct {
	name    string
	tree    lab.Thing
	loader  lab.Loader
	volumes bool
	install string // makes an entry for the second kernel
	once    string
	stays   bool // whether the loader cannot write down that it has started the kernel once
}{
	{
		name: "grub", tree: lab.GRUBTree, loader: lab.GRUB,
		install: grubInstall, once: grubOnce,
	},
	{
		name: "lvm", tree: lab.GRUBTree, loader: lab.GRUB, volumes: true,
		install: grubInstall, once: grubOnce, stays: true,
	},
	{
		name: "uefi", tree: lab.SystemdBootTree, loader: lab.SystemdBoot,
		install: `sed "s/$/ lab.second/" /etc/kernel/cmdline >/etc/lab/cmdline
kernel=$(echo /boot/second/vmlinuz-*)
KERNEL_INSTALL_CONF_ROOT=/etc/lab kernel-install --entry-token=literal:lab-second \
	add "${kernel#*/vmlinuz-}" "$kernel" /boot/second/initrd.img-*`,
		once: `bootctl set-oneshot "$(basename /boot/efi/loader/entries/lab-second-*)"`,
	},
}

const (
	grubInstall = "chmod +x /etc/grub.d/45_lab; update-grub"
	grubOnce    = "grub-reboot lab-second"
)

// grubScript makes the entry of the second kernel, as the scripts of the distribution make theirs.
const grubScript = `#!/bin/sh
set -e
. /usr/share/grub/grub-mkconfig_lib
echo 'menuentry "lab second" --id lab-second {'
prepare_grub_to_access_device "$(grub-probe --target=device /boot)"
set -- /boot/second/vmlinuz-*
echo "linux $1 $(sed 's/^BOOT_IMAGE=[^ ]* //' /proc/cmdline) lab.second"
echo "initrd /boot/second/initrd.img-${1#*/vmlinuz-}"
echo '}'
`

// secondKernel puts the kernel of V2 on the host root, beside the host's own: where no tool of the distribution looks
// for kernels.
const secondKernel = `cd "$0"
release=$(ls "$1/usr/lib/modules")
mkdir boot/second
cp -a "$1/usr/lib/modules/$release" usr/lib/modules/
cp "$1/boot/vmlinuz-$release" boot/second/
chroot . update-initramfs -c -k "$release" -b /boot/second`

// TestVMLoader tests the lab's machines that have a boot loader, without the product. The loader runs at each reboot,
// reset, power cut and panic. If another kernel is chosen for one boot, it starts that kernel at the next boot only.
func TestVMLoader(t *testing.T) {
	beside(t, lab.QEMU)
	for _, c := range loaderCases {
		t.Run(c.name, func(t *testing.T) {
			l := newLoaded(t, lab.Options{
				Name: "vm" + c.name, Kind: lab.QEMU, Loader: c.loader, Volumes: c.volumes,
			}, c.tree)
			l.boots("a full reboot", l.first, l.reboot)
			l.host.Must(t, "sh", "-ec", c.install+"; sync") // a power cut takes what is not on the disk
			l.boots("a power cut", l.first, l.host.CutPower)
			l.host.Must(t, "sh", "-ec", c.once)
			l.boots("the choice of a kernel for once", l.second, l.reboot)
			if got := l.cmdline(); !strings.Contains(got, "lab.second") {
				t.Errorf("the second kernel has the command line %q", got)
			}
			after := l.first
			if c.stays {
				after = l.second
			}
			l.boots("a panic of the second kernel", after, l.panics)
			l.boots("a reset", after, l.reset)
		})
	}
}

// newLoaded boots a host with a second kernel on its disk.
func newLoaded(t *testing.T, o lab.Options, thing lab.Thing) *loaded {
	t.Helper()
	v2, err := lab.V2(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if o.Tree, err = thing(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.Customise = func(root string) error {
		out, err := exec.CommandContext(t.Context(), "sh", "-ec", secondKernel, root, v2).CombinedOutput()
		if err != nil {
			return fmt.Errorf("cannot add a kernel: %w\n%s", err, out)
		}
		return writeTexts(root, map[string]string{"etc/grub.d/45_lab": grubScript})
	}
	l := &loaded{T: t, host: lab.Start(t, o)}
	l.first, l.second = l.kernel(), filepath.Base(l.host.Must(t, "sh", "-c", "echo /boot/second/vmlinuz-*"))
	l.second = strings.TrimPrefix(l.second, "vmlinuz-")
	if l.first == l.second {
		t.Fatalf("both kernels are %s", l.first)
	}
	if failed, err := l.host.FailedUnits(t.Context()); err != nil || len(failed) != 0 {
		t.Fatalf("the machine has failed units %v (%v)", failed, err)
	}
	return l
}

// loaded is a machine that a loader starts.
type loaded struct {
	*testing.T
	host          *lab.Host
	first, second string // releases of kernels
}

func (l *loaded) kernel() string { return l.host.Must(l.T, "uname", "-r") }

func (l *loaded) cmdline() string { return l.host.Must(l.T, "cat", "/proc/cmdline") }

// boots expects a kernel after a full reboot of some kind.
func (l *loaded) boots(after, kernel string, how func(context.Context) (lab.BootStamp, error)) {
	l.Helper()
	before, err := l.host.Stamp(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	start := time.Now()
	now, err := how(l.Context())
	if err != nil {
		l.Fatalf("after %s: %v\n%s", after, err, l.host.Console())
	}
	if now.BootID == before.BootID {
		l.Errorf("after %s: that was no full reboot", after)
	}
	if got := l.kernel(); got != kernel {
		l.Errorf("after %s, kernel %s runs, want %s", after, got, kernel)
	}
	l.Logf("after %s, %s was up in %v", after, kernel, time.Since(start).Round(time.Second))
}

func (l *loaded) reboot(ctx context.Context) (lab.BootStamp, error) {
	return l.host.FullReboot(ctx, "systemctl", "reboot")
}

func (l *loaded) reset(ctx context.Context) (lab.BootStamp, error) {
	if err := l.host.Reset(); err != nil {
		return lab.BootStamp{}, err
	}
	return l.host.AwaitReboot(ctx, l.host.Patience())
}

// panics lets the running kernel panic, and reboot.
func (l *loaded) panics(ctx context.Context) (lab.BootStamp, error) {
	l.host.Sh(ctx, "echo 1 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger")
	return l.host.AwaitReboot(ctx, l.host.Patience())
}
