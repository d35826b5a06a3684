package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// recipe is everything that decides what a tree contains, except the state of the archive. It is hashed into the tree's
// name in the cache.
type recipe struct {
	Suites   []string // the first is the distribution; "-security" ones come from the security archive
	Packages []string
	Files    map[string]string // written when all packages are installed
	Hook     string            // shell, then run in the tree
}

// leanly is how packages are installed: without what no test looks at, which is a quarter of all files, and without waiting
// for the disk, because a tree that was not finished is built anew.
var leanly = []string{"force-unsafe-io", "path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/man/*",
	"path-exclude=/usr/share/info/*", "path-exclude=/usr/share/locale/*"}

// server is what both images of the lab have: what an ordinary small server has, and services whose data and whose
// answers tell how an update went.
var server = []string{
	"systemd", "systemd-sysv", "dbus", "libpam-systemd", "systemd-resolved", "linux-image-amd64",
	"openssh-server", "nginx-light", "redis-server",
	"iproute2", "nftables", "iputils-ping", "ca-certificates", "sudo", "python3-minimal",
	"vim-tiny", "less", "kmod", "procps", "locales", "acl", "libcap2-bin",
}

// V1 is the tree of the first image: Debian trixie as it was released, with cron.
func V1(ctx context.Context) (string, error) {
	return tree(ctx, "v1", recipe{
		Suites:   []string{"trixie"},
		Packages: append([]string{"cron"}, server...),
		Hook:     imageHook,
		Files:    imageFiles("1", "one"),
	})
}

// V2 is the tree of the second image: the same with all updates, without cron and with memcached.
func V2(ctx context.Context) (string, error) {
	return tree(ctx, "v2", recipe{
		Suites:   []string{"trixie", "trixie-updates", "trixie-security"},
		Packages: append([]string{"memcached"}, server...),
		Hook:     imageHook,
		Files:    imageFiles("2", "two"),
	})
}

// V3 is the tree of a third image, with a kernel that is newer by more than a fix: of Debian forky.
func V3(ctx context.Context) (string, error) {
	return tree(ctx, "v3", recipe{
		Suites:   []string{"forky"},
		Packages: append([]string{"memcached"}, server...),
		Hook:     imageHook,
		Files:    imageFiles("3", "three"),
	})
}

// NoKernel is V2's tree without a kernel and its modules, as images for containers are.
func NoKernel(ctx context.Context) (string, error) {
	v2, err := V2(ctx)
	if err != nil {
		return "", err
	}
	return keep(ctx, "nokernel", "v2 without a kernel", filepath.Base(v2), func(ctx context.Context, path string) error {
		if out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", v2, path).CombinedOutput(); err != nil {
			return fmt.Errorf("cannot copy a tree: %w\n%s", err, out)
		}
		const strip = `cd "$0"; rm -rf usr/lib/modules boot/* vmlinuz* initrd.img*; echo nokernel >usr/share/lab/version
sed -i 's/^IMAGE_VERSION=.*/IMAGE_VERSION=nokernel/' usr/lib/os-release; echo 'lab image version nokernel' >usr/share/lab/www/index.html`
		if out, err := exec.CommandContext(ctx, "sh", "-ec", strip, path).CombinedOutput(); err != nil {
			return fmt.Errorf("cannot take the kernel from a tree: %w\n%s", err, out)
		}
		return nil
	})
}

// imageHook makes an image of an installation: what belongs to one host goes, what cannot run in a container or makes
// no sense on an image (its packages are not updated one by one) is masked as an author of such images would do.
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
# Only with what a machine of the lab needs: the emulator takes seconds to unpack all drivers. No machine boots from V3.
if command -v update-initramfs && test -d /etc/initramfs-tools; then
	printf '%s\n' MODULES=list COMPRESS=gzip COMPRESSLEVEL=1 >/etc/initramfs-tools/conf.d/lab
	printf '%s\n' ext4 virtio_blk virtio_pci >>/etc/initramfs-tools/modules
	update-initramfs -c -k all
	ln -sf boot/initrd.img-* /initrd.img
fi
`

// imageFiles are the files that tell the images of the lab apart.
func imageFiles(version, word string) map[string]string {
	return map[string]string{
		"/usr/share/lab/version":        version + "\n",
		"/usr/share/lab/www/index.html": "lab image version " + version + "\n",
		// The page lies in /usr: one in /var would be carried over and say nothing about the image.
		"/etc/nginx/sites-available/default": `server {
	listen 80 default_server;
	listen [::]:80 default_server;
	root /usr/share/lab/www;
}
`,
		// Says which image's units PID 1 has started, as /usr/share/lab/version says which image's files it sees.
		"/usr/lib/systemd/system/lab-identity.service": `[Unit]
Description=Note which lab image was started

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/cp /usr/share/lab/version /run/lab-identity

[Install]
WantedBy=multi-user.target
`,
		// Two files for merging: one the image changes between versions, one it never does.
		"/etc/lab/changing.conf": "# set by the image\nmotto = " + word + "\nlimit = 10\n",
		"/etc/lab/constant.conf": "# set by the image\ncolour = blue\n",
	}
}

// tree returns a cached tree of Debian.
func tree(ctx context.Context, name string, r recipe) (string, error) {
	what := fmt.Sprintf("Debian %s, %d packages and what they depend on", r.Suites[0], len(r.Packages))
	recipe := struct {
		recipe
		Options []string
	}{r, leanly}
	return keep(ctx, name, what, recipe, func(ctx context.Context, path string) error { return debootstrap(ctx, path, r) })
}

// debootstrap makes a tree with mmdebstrap, which keeps its mounts to itself.
func debootstrap(ctx context.Context, path string, r recipe) error {
	m, err := findMirrors(ctx)
	if err != nil {
		return err
	}
	args := []string{"--mode=root", "--variant=apt", "--format=directory", "--aptopt=Acquire::Check-Valid-Until \"false\""}
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
	// One time stamp for whatever asks for it, and no initrd from any of the packages that would make one: the hook does.
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1750000000", "INITRD=No")
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

// disk returns the path of a cached disk image whose ext4 file system has the files of a tree, and room to work in. It is
// sparse.
func disk(ctx context.Context, tree string) (string, error) {
	type diskRecipe struct {
		Tree string
		Size int64
	}
	r := diskRecipe{filepath.Base(tree), diskSize}
	return keep(ctx, "disk", "a file system with "+filepath.Base(tree), r, func(ctx context.Context, path string) error {
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
		// verity: as on a host made for it; this kernel may not have the feature, and does not mind the flag
		out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-O", "verity", "-m", "0", "-d", tree, path).CombinedOutput()
		if err != nil {
			return fmt.Errorf("cannot run mke2fs: %w\n%s", err, out)
		}
		return nil
	})
}

// diskSize is room for the host's own tree, two staged images and what tests write.
const diskSize = 6 << 30

// copySparse copies a disk image and keeps its holes, or shares its blocks where the file system can.
func copySparse(ctx context.Context, from, to string) error {
	out, err := exec.CommandContext(ctx, "cp", "--reflink=auto", "--sparse=always", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot copy %s: %w\n%s", from, err, out)
	}
	return nil
}
