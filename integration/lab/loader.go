package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A Loader is what starts the kernel of a machine.
type Loader int

const (
	// NoLoader lets QEMU start the kernel of the host's tree, in place of firmware and boot loader.
	NoLoader Loader = iota
	// GRUB is Debian's GRUB for BIOS. The tree is [GRUBTree].
	GRUB
	// SystemdBoot is systemd-boot for UEFI, to which Debian's tools add kernels with kernel-install. The tree is
	// [SystemdBootTree].
	SystemdBoot
)

// GRUBTree returns the tree of V1 with what Debian starts a machine with BIOS by, from a partition or a logical volume.
func GRUBTree(ctx context.Context) (string, error) {
	if err := EnsurePackages(ctx, "fdisk"); err != nil {
		return "", err
	}
	return tree(ctx, "grub", recipe{
		Suites:   []string{"trixie"},
		Packages: append([]string{"cron", "grub-pc", "lvm2"}, server...),
		Hook:     imageHook,
		Files:    imageFiles("grub", "grub"),
	})
}

// SystemdBootTree returns the tree of V1 with what Debian starts a machine with UEFI by.
func SystemdBootTree(ctx context.Context) (string, error) {
	if err := EnsurePackages(ctx, "fdisk", "ovmf"); err != nil {
		return "", err
	}
	return tree(ctx, "systemd-boot", recipe{
		Suites:   []string{"trixie"},
		Packages: append([]string{"cron", "systemd-boot", "dosfstools", "efibootmgr"}, server...),
		Hook:     imageHook,
		Files:    imageFiles("systemd-boot", "systemd-boot"),
	})
}

// loaders are the ways to start a kernel from the disk, as their own tools set them up on the running host.
var loaders = map[Loader]struct {
	name      string
	partition string // the first one, for sfdisk: what the loader needs beside the host root
	setup     string // shell
}{
	GRUB: {
		name:      "grub",
		partition: "start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649", // BIOS boot partition
		setup: `cat >>/etc/default/grub <<END
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX_DEFAULT=
GRUB_CMDLINE_LINUX="` + words + `"
GRUB_TERMINAL=serial
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
END
echo 'grub-pc grub-pc/install_devices multiselect /dev/vda' | debconf-set-selections
grub-install /dev/vda
update-grub`,
	},
	SystemdBoot: {
		name:      "uefi",
		partition: "start=1MiB, size=255MiB, type=uefi",
		setup: `mkfs.vfat /dev/vda1
mkdir -p /boot/efi
mount /dev/vda1 /boot/efi
echo "root=UUID=$(findmnt -no UUID /) ro ` + words + `" >/etc/kernel/cmdline
bootctl install --make-machine-id-directory=auto
for kernel in /boot/vmlinuz-*; do kernel-install add "${kernel#*/vmlinuz-}" "$kernel"; done`,
	},
}

const (
	rootStart = 256 // where the partition of the host root starts, in MiB: behind what any loader needs
	// partitionTable has the first partition and the type of the second in it.
	partitionTable = "label: gpt\n%s\nstart=256MiB, type=%s\n"
)

// A loaderRecipe is everything that decides what a disk with a loader contains.
type loaderRecipe struct {
	Disk             string // without partitions
	Partition, Setup string
	Volumes          bool
}

// loaderDisk returns a directory in the cache with a disk that starts by a loader, and with what its firmware keeps;
// inside the enclosure only.
func loaderDisk(ctx context.Context, o Options) (string, error) {
	plain, err := disk(ctx, o.Tree) // a step of its own: no step waits for another one
	if err != nil {
		return "", err
	}
	l := loaders[o.Loader]
	r := loaderRecipe{filepath.Base(plain), l.partition, l.setup, o.Volumes}
	name := l.name
	if o.Volumes {
		name += "-lvm"
	}
	return keep(ctx, name+"-disk", "a disk that starts by "+name, r, func(ctx context.Context, path string) error {
		return setUp(ctx, Options{
			Name: "set-" + name, Kind: QEMU, Tree: o.Tree, Loader: o.Loader, Volumes: o.Volumes, installs: true,
		}, path)
	})
}

// setUp boots a host without a loader, has it set up its loader, and moves its disk to a directory. The host stands in
// for an installer.
func setUp(ctx context.Context, o Options, dir string) error {
	h, err := Boot(ctx, o)
	if err != nil {
		return err
	}
	defer h.Stop()
	if r := h.Sh(ctx, loaders[o.Loader].setup+"\nsystemctl --no-block poweroff"); r.Code != 0 {
		return fmt.Errorf("cannot set up the loader: %s", r)
	}
	select {
	case <-h.ended:
	case <-time.After(h.way.limit()):
		return fmt.Errorf("cannot set up the loader: the host does not power off\n%s", h.Console())
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	files, err := filepath.Glob(h.image + "*")
	for _, file := range files {
		err = errOr(err, os.Rename(file, filepath.Join(dir, filepath.Base(file))))
	}
	return err
}

// plugIn gives the host its own copy of the disk that its options ask for.
func (h *Host) plugIn(ctx context.Context, o Options) error {
	if o.Loader != NoLoader && !o.installs {
		dir, err := loaderDisk(ctx, o)
		if err != nil {
			return err
		}
		kept, err := filepath.Glob(filepath.Join(dir, "*"))
		for _, file := range kept {
			err = errOr(err, copySparse(ctx, file, filepath.Join(h.dir, filepath.Base(file))))
		}
		return err
	}
	base, err := disk(ctx, o.Tree)
	if err != nil {
		return err
	}
	if o.Loader == SystemdBoot {
		if err := copySparse(ctx, "/usr/share/OVMF/OVMF_VARS_4M.fd", variables(h.image)); err != nil {
			return err
		}
	}
	return copySparse(ctx, base, h.image)
}

// newDisk is the suffix of a disk that is about to replace one.
const newDisk = ".new"

// moveInto copies a disk's file system into the new disk, at a place in MiB, and puts the new one in its place.
func moveInto(ctx context.Context, image string, at int) error {
	out, err := exec.CommandContext(ctx, "dd", "if="+image, "of="+image+newDisk, "bs=1M", fmt.Sprintf("seek=%d", at),
		"conv=sparse,notrunc", "status=none").CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot move a file system: %w\n%s", err, out)
	}
	return os.Rename(image+newDisk, image)
}

// variables returns the file in which the firmware of the machine with a disk keeps its variables.
func variables(image string) string { return image + ".variables" }

// moveToPartition moves the file system of a disk to where its partition begins. It unmounts the tree.
func moveToPartition(ctx context.Context, image, tree string) error {
	if err := unmountDisk(ctx, image, tree); err != nil {
		return err
	}
	if err := os.WriteFile(image+newDisk, nil, 0o644); err != nil {
		return err
	}
	if err := os.Truncate(image+newDisk, (rootStart+1)<<20+diskSize); err != nil {
		return err
	}
	return moveInto(ctx, image, rootStart)
}

// partition turns the disk whose file system is mounted at tree into one with partitions, the file system or the
// volume group in the second. It unmounts the tree.
func partition(ctx context.Context, image, tree string, l Loader, logical bool) error {
	kind, move := "linux", moveToPartition
	if logical {
		kind, move = "lvm", func(ctx context.Context, image, tree string) error {
			return makeVolumes(ctx, image, tree, rootStart, volumes[:1])
		}
	}
	if err := move(ctx, image, tree); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "sfdisk", "-q", "--no-reread", "--no-tell-kernel", image)
	cmd.Stdin = strings.NewReader(fmt.Sprintf(partitionTable, loaders[l].partition, kind))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make partitions: %w\n%s", err, out)
	}
	return nil
}

// rootOffset returns where on the disk the file system of the host root begins, in bytes.
func (o Options) rootOffset() int64 {
	switch {
	case o.Loader == NoLoader || o.installs:
		return 0
	case o.Volumes:
		return (rootStart + volumesStart) << 20
	}
	return rootStart << 20
}

// loads reports whether the host is a machine that comes back from a reboot without the lab: its firmware and its
// loader start a kernel again.
func (h *Host) loads() bool {
	q, ok := h.way.(*qemu)
	return ok && q.loads()
}

// Reset resets a machine that a loader starts, like the button of a server. [Host.AwaitReboot] waits for what comes
// of it.
func (h *Host) Reset() error {
	q, ok := h.way.(*qemu)
	if !ok || !q.loads() {
		return fmt.Errorf("cannot reset host %s: it has no boot loader", h.Name)
	}
	if _, err := q.tell("system_reset"); err != nil {
		return fmt.Errorf("cannot reset host %s: %w", h.Name, err)
	}
	return nil
}

// awaitLoader waits until the host has booted again since the last boot that the lab waited for, however many kernels
// were started meanwhile.
func (h *Host) awaitLoader(ctx context.Context, limit time.Duration) (BootStamp, error) {
	limited, stop := context.WithTimeout(ctx, limit+h.way.limit())
	defer stop()
	err := poll(limit+h.way.limit(), func() (bool, error) {
		if err := h.Alive(); err != nil {
			return false, err
		}
		now, err := h.Stamp(limited)
		return err == nil && now.BootID != h.bootID, limited.Err()
	})
	if err != nil {
		return BootStamp{}, fmt.Errorf("cannot see host %s boot again: %w", h.Name, err)
	}
	for _, step := range []func() error{h.awaitUp, h.awaitAddress, h.noteBoot} {
		if err := step(); err != nil {
			return BootStamp{}, fmt.Errorf("cannot see host %s come up again: %w", h.Name, err)
		}
	}
	return h.Stamp(ctx)
}

// noteBoot remembers the boot of a machine that a loader starts, to tell the next one.
func (h *Host) noteBoot() error {
	if !h.loads() {
		return nil
	}
	limited, stop := context.WithTimeout(context.Background(), h.Patience())
	defer stop()
	now, err := h.Stamp(limited)
	if err != nil {
		return err
	}
	h.bootID = now.BootID
	return nil
}
