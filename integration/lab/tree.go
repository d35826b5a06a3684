package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// recipe is everything that decides what a tree contains, except the state of the archive. It is hashed into the
// tree's name in the cache.
type recipe struct {
	Suites   []string // the first is the distribution; "-security" ones come from the security archive
	Packages []string
	Files    map[string]string // written when all packages are installed
	Hook     string            // shell, then run in the tree
}

// leanly are the options of dpkg: it leaves out what no test looks at, a quarter of all files, and does not wait for
// the disk, because an interrupted build starts anew.
var leanly = []string{"force-unsafe-io", "path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/man/*",
	"path-exclude=/usr/share/info/*", "path-exclude=/usr/share/locale/*"}

// server lists what all images of the lab have: what is on an ordinary small server, and services whose data and
// answers show how an update went.
var server = []string{
	"systemd", "systemd-sysv", "dbus", "libpam-systemd", "systemd-resolved", "linux-image-amd64",
	"openssh-server", "nginx-light", "redis-server",
	"iproute2", "nftables", "iputils-ping", "ca-certificates", "sudo", "python3-minimal",
	"vim-tiny", "less", "kmod", "procps", "locales", "acl", "libcap2-bin",
}

// V1 returns the tree of the first image: Debian trixie as it was released, with cron.
func V1(ctx context.Context) (string, error) {
	return tree(ctx, "v1", recipe{
		Suites:   []string{"trixie"},
		Packages: append([]string{"cron"}, server...),
		Hook:     imageHook,
		Files:    imageFiles("1", "one"),
	})
}

// V2 returns the tree of the second image: the same with all updates, without cron and with memcached. It is installed
// on its own, not upgraded from V1, so that users and groups have other ids, as between two builds of an image.
func V2(ctx context.Context) (string, error) {
	return tree(ctx, "v2", recipe{
		Suites:   []string{"trixie", "trixie-updates", "trixie-security"},
		Packages: append([]string{"memcached"}, server...),
		Hook:     imageHook,
		Files:    imageFiles("2", "two"),
	})
}

// V3 returns the tree of a third image, Debian forky: its kernel is newer by more than a fix.
func V3(ctx context.Context) (string, error) {
	return tree(ctx, "v3", recipe{
		Suites:   []string{"forky"},
		Packages: append([]string{"memcached"}, server...),
		Hook:     imageHook,
		Files:    imageFiles("3", "three"),
	})
}

// Volumes returns the tree of V1 with LVM: as an image, and to install a host on logical volumes from.
func Volumes(ctx context.Context) (string, error) {
	return tree(ctx, "volumes", recipe{
		Suites:   []string{"trixie"},
		Packages: append([]string{"cron", "lvm2"}, server...),
		Hook:     imageHook,
		Files:    imageFiles("volumes", "volumes"),
	})
}

// Objects returns the tree of V1 with packages that keep something in the kernel, as an image and for hosts: AppArmor's
// profiles, swap on zram, arrays of disks.
func Objects(ctx context.Context) (string, error) {
	return tree(ctx, "objects", recipe{
		Suites:   []string{"trixie"},
		Packages: append([]string{"cron", "apparmor", "systemd-zram-generator", "mdadm"}, server...),
		Hook:     imageHook,
		Files:    imageFiles("objects", "objects"),
	})
}

// Multipath returns the tree of V1 with multipath-tools: as an image, and for hosts with disks that have several paths.
func Multipath(ctx context.Context) (string, error) {
	return tree(ctx, "multipath", recipe{
		Suites:   []string{"trixie"},
		Packages: append([]string{"cron", "multipath-tools"}, server...),
		Hook:     imageHook,
		Files:    imageFiles("multipath", "multipath"),
	})
}

// Engines returns the tree of V1 with what runs containers and machines: podman, also for ordinary users, and
// systemd-machined.
func Engines(ctx context.Context) (string, error) {
	return tree(ctx, "engines", recipe{
		Suites: []string{"trixie"},
		Packages: append([]string{"cron", "podman", "crun", "uidmap", "dbus-user-session", "systemd-container"},
			server...),
		Hook:  imageHook,
		Files: imageFiles("engines", "engines"),
	})
}

// V4 returns the tree of a fourth image, Debian sid: the newest systemd and C library that the archive has, without a
// kernel.
func V4(ctx context.Context) (string, error) {
	return tree(ctx, "v4", recipe{
		Suites: []string{"sid"},
		Packages: append([]string{"memcached"}, slices.DeleteFunc(slices.Clone(server),
			func(name string) bool { return name == "linux-image-amd64" })...),
		Hook:  imageHook,
		Files: imageFiles("4", "four"),
	})
}

// NoKernel returns V2's tree without a kernel and its modules, as images for containers are.
func NoKernel(ctx context.Context) (string, error) {
	v2, err := V2(ctx)
	if err != nil {
		return "", err
	}
	return keep(ctx, "nokernel", "v2 without a kernel", filepath.Base(v2),
		func(ctx context.Context, path string) error {
			copied := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", v2, path)
			if out, err := copied.CombinedOutput(); err != nil {
				return fmt.Errorf("cannot copy a tree: %w\n%s", err, out)
			}
			const strip = `cd "$0"
rm -rf usr/lib/modules boot/* vmlinuz* initrd.img*
echo nokernel >usr/share/lab/version
echo 'lab image version nokernel' >usr/share/lab/www/index.html
sed -i 's/^IMAGE_VERSION=.*/IMAGE_VERSION=nokernel/' usr/lib/os-release`
			if out, err := exec.CommandContext(ctx, "sh", "-ec", strip, path).CombinedOutput(); err != nil {
				return fmt.Errorf("cannot remove the kernel from a tree: %w\n%s", err, out)
			}
			return nil
		})
}

// imageHook turns an installation into an image: it removes what belongs to one host, and masks what makes no sense
// there, as the author of an image would: its packages are not updated one by one.
const imageHook = `
rm -f /etc/hostname /etc/ssh/ssh_host_*
: >/etc/machine-id
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
printf 'IMAGE_ID=lab\nIMAGE_VERSION=%s\n' "$(cat /usr/share/lab/version)" >>/usr/lib/os-release
systemctl enable systemd-networkd.service lab-identity.service
systemctl disable systemd-networkd-wait-online.service
systemctl mask apt-daily.timer apt-daily-upgrade.timer
setfacl -m u:redis:r /usr/share/lab/version
setcap cap_net_raw+ep /usr/bin/ping
# With the drivers of the lab's machines only: the emulator takes seconds to unpack all others.
# No machine boots from V3.
if command -v update-initramfs && test -d /etc/initramfs-tools; then
	printf '%s\n' MODULES=list COMPRESS=gzip COMPRESSLEVEL=1 >/etc/initramfs-tools/conf.d/lab
	printf '%s\n' ext4 virtio_blk virtio_pci >>/etc/initramfs-tools/modules
	update-initramfs -c -k all
	ln -sf boot/initrd.img-* /initrd.img
fi
`

// imageFiles returns the files that distinguish the images of the lab.
func imageFiles(version, word string) map[string]string {
	return map[string]string{
		"/usr/share/lab/version":        version + "\n",
		"/usr/share/lab/www/index.html": "lab image version " + version + "\n",
		// The page is in /usr: in /var it would be kept across switches and say nothing about the image.
		"/etc/nginx/sites-available/default": `server {
	listen 80 default_server;
	listen [::]:80 default_server;
	root /usr/share/lab/www;
}
`,
		// Records whose units PID 1 has started; /usr/share/lab/version says whose files are mounted.
		"/usr/lib/systemd/system/lab-identity.service": `[Unit]
Description=Record which lab image was started

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/cp /usr/share/lab/version /run/lab-identity

[Install]
WantedBy=multi-user.target
`,
		// Two files for merging: one that changes between images, and one that does not.
		"/etc/lab/changing.conf": "# set by the image\nmotto = " + word + "\nlimit = 10\n",
		"/etc/lab/constant.conf": "# set by the image\ncolour = blue\n",
	}
}

// tree returns the path of a cached tree of Debian.
func tree(ctx context.Context, name string, r recipe) (string, error) {
	what := fmt.Sprintf("Debian %s, %d packages and what they depend on", r.Suites[0], len(r.Packages))
	recipe := struct {
		recipe
		Options []string
	}{r, leanly}
	return keep(ctx, name, what, recipe, func(ctx context.Context, path string) error {
		return debootstrap(ctx, path, r)
	})
}

// debootstrap makes a tree with mmdebstrap, which has a mount namespace of its own.
func debootstrap(ctx context.Context, path string, r recipe) error {
	m, err := findMirrors(ctx)
	if err != nil {
		return err
	}
	args := []string{"--mode=root", "--variant=apt", "--format=directory",
		"--aptopt=Acquire::Check-Valid-Until \"false\""}
	for _, option := range leanly {
		args = append(args, "--dpkgopt="+option)
	}
	args = append(args, "--include="+strings.Join(r.Packages, ","), r.Suites[0], path)
	for _, suite := range r.Suites {
		uri := m.Main
		if strings.HasSuffix(suite, "-security") {
			uri = m.Security
		}
		args = append(args, fmt.Sprintf("deb %s %s main", uri, suite))
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	// One time stamp for whatever asks for it. No package generates an initrd: the hook does so, once. PATH has
	// only Debian's own programs: mmdebstrap runs python3 for each package, and another python3 can be much slower.
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1750000000", "INITRD=No", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot run mmdebstrap: %w\n%s", err, out)
	}
	for name, text := range r.Files {
		if err := writeFile(filepath.Join(path, name), text); err != nil {
			return err
		}
	}
	if out, err := exec.CommandContext(ctx, "chroot", path, "sh", "-euxc", r.Hook).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot finish the image: %w\n%s", err, out)
	}
	return nil
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// HostDisk returns the path of the disk that hosts are booted from, with [V1].
func HostDisk(ctx context.Context) (string, error) { return diskOf(ctx, V1) }

// oldDisk is the disk of [StartOld].
func oldDisk(ctx context.Context) (string, error) { return diskOf(ctx, Old) }

func diskOf(ctx context.Context, tree Thing) (string, error) {
	path, err := tree(ctx)
	if err != nil {
		return "", err
	}
	return disk(ctx, path)
}

// disk returns the path of a cached disk image whose ext4 file system has the files of a tree, and room to work in. It
// is sparse.
func disk(ctx context.Context, tree string) (string, error) {
	type diskRecipe struct {
		Tree string
		Size int64
	}
	r := diskRecipe{filepath.Base(tree), diskSize}
	return keep(ctx, "disk", "a file system with "+filepath.Base(tree), r,
		func(ctx context.Context, path string) error {
			f, err := os.Create(path)
			if err != nil {
				return err
			}
			if err := f.Truncate(r.Size); err != nil {
				f.Close()
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
			// verity, as on a host prepared for it; a kernel without the feature ignores the flag.
			out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-O", "verity", "-m", "0", "-d", tree,
				path).CombinedOutput()
			if err != nil {
				return fmt.Errorf("cannot run mke2fs: %w\n%s", err, out)
			}
			return nil
		})
}

// diskSize has room for the host's own tree, two staged images and what tests write.
const diskSize = 6 << 30

// copySparse copies a disk image with its holes, or shares its blocks where the file system can.
func copySparse(ctx context.Context, from, to string) error {
	out, err := exec.CommandContext(ctx, "cp", "--reflink=auto", "--sparse=always", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot copy %s: %w\n%s", from, err, out)
	}
	return nil
}
