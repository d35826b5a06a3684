// Package imagekernel answers what of an image's kernel is on the host root, and how it gets there. It promises that a
// kernel is in the menu of the boot loader only when it is complete, and that nothing of the distribution's own kernels
// is changed or removed.
package imagekernel

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/bootloader"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/graft"
	"github.com/updatectl/updatectl/switcher/hostroot"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Kernel is the kernel of an image.
type Kernel struct {
	// Build is made from the content of the kernel, and ID from that and the parameters that the image wants: the same
	// kernel with the same parameters is installed once, however many images have it.
	Build string `json:"build"`
	ID    string `json:"id"`
	rootfs.Kernel
}

// With returns the kernel with some parameters.
func (k Kernel) With(options []string) Kernel {
	const length = 2 // bytes
	sum := sha256.Sum256([]byte(strings.Join(options, "\n")))
	k.ID = k.Build + hex.EncodeToString(sum[:length])
	return k
}

var (
	// ErrNone means that an image has no kernel that could be started.
	ErrNone = errors.New("the image has no kernel")
	// ErrInstall means that a kernel cannot be installed on this host.
	ErrInstall = errors.New("cannot install the kernel of the image")
	// ErrHost means that the host root lacks what a kernel of an image needs, whichever it is.
	ErrHost = errors.New("the host root cannot start the kernel of an image")
)

const (
	modulesDir = "/usr/lib/modules"
	// marker is a file in a directory of modules that updatectl has made, with the build of the kernel.
	marker = ".updatectl"
	// unfinished begins the names of directories of modules that are being copied.
	unfinished = ".updatectl-"

	maxKernel = 256 << 20 // of a kernel, in bytes
)

// Find returns the newest kernel of an image that has both an image file and modules, without parameters. The error
// is an ErrNone.
func Find(image rootfs.Dir) (Kernel, error) {
	var found Kernel
	for _, k := range image.Kernels() {
		if found.Release != "" && rootfs.CompareKernels(k.Release, found.Release) < 0 {
			continue
		}
		if f, err := open(image, k.Release); err == nil {
			f.Close()
			found.Kernel = k
		}
	}
	if found.Release == "" {
		return found, ErrNone
	}
	f, err := open(image, found.Release)
	if err != nil {
		return found, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, maxKernel+1))
	if err == nil && n > maxKernel {
		err = fmt.Errorf("%w: %s is larger than %d MiB", ErrInstall, f.Name(), maxKernel>>20)
	}
	const idLength = 6 // bytes: enough to tell a dozen kernels apart
	found.Build = hex.EncodeToString(h.Sum(nil)[:idLength])
	return found.With(nil), err
}

// open opens the file of a kernel in an image.
func open(image rootfs.Dir, release string) (*os.File, error) {
	f, err := image.Open(filepath.Join(modulesDir, release, "vmlinuz"))
	if err != nil {
		f, err = image.Open("/boot/vmlinuz-" + release)
	}
	return f, err
}

// Place is where a kernel is installed.
type Place struct {
	Host   bootloader.Tree
	Loader bootloader.Loader
}

// InHostRoot calls a function with the host root of this machine, writable, and its boot loader. The error may be a
// [bootloader.ErrUnsupported] or [bootloader.ErrContainer].
func InHostRoot(ctx context.Context, do func(Place) error) error {
	if bootloader.IsContainer() {
		return bootloader.ErrContainer
	}
	running, err := facts.MountedRoot()
	if err != nil {
		return err
	}
	from := switcher.PrivateDir + "/host"
	if running == switcher.HostRoot {
		from = "/"
	}
	return hostroot.Do(from, func(r hostroot.Root) error {
		loader, err := bootloader.Find(ctx, r)
		if err != nil {
			return err
		}
		return do(Place{Host: r, Loader: loader})
	})
}

// Install installs a kernel of an image beside those of the host, as an entry with some options on its command line.
// What is complete stays. It is no default afterwards. The error is an ErrInstall.
func (p Place) Install(ctx context.Context, image rootfs.Dir, k Kernel, title string, options []string) error {
	steps := []func() error{
		func() error { return p.check(image, k) },
		func() error { return p.copyModules(image, k) },
		func() error { return p.copyKernel(image, k) },
		func() error { return p.makeInitrd(ctx, k) },
		func() error {
			return p.Loader.Add(ctx, bootloader.Entry{ID: k.ID, Title: title, Release: k.Release, Options: options})
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("%w %s: %w", ErrInstall, k.Release, err)
		}
	}
	return nil
}

// unitDirs are the directories of units that packages and `make install` write to.
var unitDirs = []string{switcher.UnitDir, "/usr/local/lib/systemd/system", "/etc/systemd/system"}

// wayBack is the unit of the host root that leads back from a kernel whose host root does not reach the resume.
const wayBack = "updatectl-kernel.timer"

// checkHost returns an ErrHost if the host root has no updatectl that leads back from a kernel which does not come up,
// or no tool that makes an initrd which does so.
func (p Place) checkHost() error {
	lead := slices.ContainsFunc(unitDirs, func(dir string) bool {
		for _, target := range []string{"sysinit.target.wants", "emergency.target.wants"} {
			st, err := os.Lstat(p.Host.Path(filepath.Join(dir, target, wayBack)))
			if err != nil || st.Mode().Type() != fs.ModeSymlink {
				return false
			}
		}
		st, err := os.Lstat(p.Host.Path(filepath.Join(dir, wayBack)))
		return err == nil && st.Mode().IsRegular()
	})
	if masked, err := os.Readlink(p.Host.Path("/etc/systemd/system/" + wayBack)); err == nil && masked == "/dev/null" {
		return fmt.Errorf("%w: %s is masked there; `updatectl rollback host`, unmask it, and apply again", ErrHost, wayBack)
	}
	if !lead {
		return fmt.Errorf("%w: its updatectl is older than this one, and could not reboot the host if the new kernel "+
			"does not come up; `updatectl rollback host`, upgrade updatectl there, and apply again", ErrHost)
	}
	_, err := p.maker()
	return err
}

// checkImage returns an ErrInstall if the image has an updatectl of its own that knows nothing of kernels of images: it
// would neither keep what the full reboot has started, nor lead back.
func checkImage(image rootfs.Dir) error {
	if !graft.FollowsSwitches(string(image)) || image.Exists(filepath.Join(switcher.UnitDir, wayBack)) {
		return nil // without one of its own, it gets the one that runs
	}
	return fmt.Errorf("%w: its own updatectl is older than this one, and would not keep the kernel; publish the image "+
		"with updatectl of this version, or without one", ErrInstall)
}

// Fits returns why the kernel of an image cannot be installed, or must not be started; it changes nothing. The error is
// an ErrHost, or an ErrInstall if the host root has no room for this kernel, or has something in its way.
func (p Place) Fits(image rootfs.Dir, k Kernel) error {
	if err := cmp.Or(p.checkHost(), checkImage(image)); err != nil {
		return err
	}
	if err := p.check(image, k); err != nil {
		return fmt.Errorf("%w %s: %w", ErrInstall, k.Release, err)
	}
	return nil
}

func (p Place) check(image rootfs.Dir, k Kernel) error {
	err := p.checkRoom(image, k)
	if _, missing := os.Lstat(p.Host.Path(filepath.Join(modulesDir, k.Release))); err == nil && missing == nil {
		err = p.checkModules(k)
	}
	return err
}

// roomForInitrd is what an initrd may need, in bytes: twice a large one, because the old one of the same name stays
// until the new one is complete.
const roomForInitrd = 160 << 20

// spare is what has to remain on a file system, in bytes.
const spare = 32 << 20

// checkRoom looks for the room that the kernel needs before anything is written.
func (p Place) checkRoom(image rootfs.Dir, k Kernel) error {
	modules, err := sizeOf(string(image) + filepath.Join(modulesDir, k.Release))
	if err != nil {
		return err
	}
	f, err := open(image, k.Release)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	need := map[string]int64{}
	if _, err := os.Stat(p.Host.Path(filepath.Join(modulesDir, k.Release))); errors.Is(err, fs.ErrNotExist) {
		need[modulesDir] = modules
	}
	boot := filepath.Dir(filepath.Dir(p.Loader.Dir(k.ID)))
	initrd := p.Host.Path(filepath.Join(p.Loader.Dir(k.ID), bootloader.Initrd))
	if _, err := os.Stat(initrd); errors.Is(err, fs.ErrNotExist) {
		need[boot] = st.Size() + roomForInitrd
		need["/var/tmp"] = roomForInitrd // where its tool works
	}
	return p.haveRoom(need)
}

// haveRoom returns an ENOSPC if a file system of the host root has not the room that its directories need, in bytes.
func (p Place) haveRoom(need map[string]int64) error {
	sums := map[uint64]int64{} // by the device
	for _, dir := range slices.Sorted(maps.Keys(need)) {
		var fsys unix.Statfs_t
		var st unix.Stat_t
		if err := errors.Join(unix.Statfs(p.Host.Path(dir), &fsys), unix.Stat(p.Host.Path(dir), &st)); err != nil {
			return fmt.Errorf("cannot find out how much room %s has: %w", dir, err)
		}
		sums[st.Dev] += need[dir]
		if free := int64(fsys.Bavail) * fsys.Bsize; free < sums[st.Dev]+spare {
			return fmt.Errorf("%w: the file system of %s on the host root has %d MiB free, and %d are needed", unix.ENOSPC,
				dir, free>>20, (sums[st.Dev]+spare)>>20)
		}
	}
	return nil
}

// sizeOf returns what the files below a directory take, in bytes.
func sizeOf(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			sum += st.Size()
		}
		return err
	})
	return sum, err
}

// copyModules copies the modules of the kernel to the host root, unless they are there.
func (p Place) copyModules(image rootfs.Dir, k Kernel) error {
	at := p.Host.Path(filepath.Join(modulesDir, k.Release))
	half := p.Host.Path(filepath.Join(modulesDir, unfinished+k.Release))
	if err := durable.RemoveAll(half); err != nil {
		return err
	}
	if _, err := os.Lstat(at); err == nil {
		return p.checkModules(k)
	}
	if err := os.Mkdir(half, 0o700); err != nil {
		return err
	}
	dir, err := os.Open(half)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := copies.Into(string(image)+filepath.Join(modulesDir, k.Release), dir, copies.Owners{}); err != nil {
		return err
	}
	// The tools of the host take a directory with a kernel for one of the host's own.
	if err := os.Remove(filepath.Join(half, "vmlinuz")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.WriteFile(filepath.Join(half, marker), []byte(k.Build+"\n"), 0o644); err != nil {
		return err
	}
	if err := durable.SyncFS(half); err != nil {
		return err
	}
	return errors.Join(os.Rename(half, at), durable.SyncDir(p.Host.Path(modulesDir)))
}

// checkModules returns why the modules that are there already are not those of the kernel.
func (p Place) checkModules(k Kernel) error {
	at := p.Host.Path(filepath.Join(modulesDir, k.Release))
	const longest = 256
	build, err := durable.ReadRegular(filepath.Join(at, marker), longest)
	switch {
	case errors.Is(err, fs.ErrNotExist) && rootfs.Dir(p.Host.Path("/")).Brings(k.Kernel):
		return nil // the host's own, of the same build
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the host root has another build of this kernel, or a part of one, in %s; an image whose kernel "+
			"has another release can be installed", filepath.Join(modulesDir, k.Release))
	case err == nil && strings.TrimSpace(string(build)) != k.Build:
		return fmt.Errorf("%s of the host root belongs to another build of this kernel, from another image; "+
			"`updatectl gc` removes it when no root needs it", filepath.Join(modulesDir, k.Release))
	}
	return err
}

// copyKernel copies the kernel to the directory of its entry.
func (p Place) copyKernel(image rootfs.Dir, k Kernel) error {
	from, err := open(image, k.Release)
	if err != nil {
		return err
	}
	defer from.Close()
	dir := p.Host.Path(p.Loader.Dir(k.ID))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	half := filepath.Join(dir, bootloader.Kernel+".new")
	to, err := os.OpenFile(half, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.LimitReader(from, maxKernel))
	if err := errors.Join(err, to.Sync(), to.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(half, filepath.Join(dir, bootloader.Kernel)), durable.SyncFS(dir))
}

// initrdTime is how long the host's own tool may take to make an initrd, on a slow machine.
const initrdTime = 20 * time.Minute

// maker is a tool that makes an initrd. KERNEL and FILE stand for the release of the kernel and the file to write.
type maker struct {
	program string
	command []string
}

// makers are looked for in this order. An initrd of mkinitcpio that does not find its disk waits for a person, whatever
// the command line says, so it is not among them.
var makers = []maker{
	{"/usr/sbin/mkinitramfs", []string{"mkinitramfs", "-o", "FILE", "KERNEL"}},
	{"/usr/bin/dracut", []string{"dracut", "--force", "--quiet", "FILE", "KERNEL"}},
}

// maker returns the tool of the host, or an ErrHost.
func (p Place) maker() (maker, error) {
	for _, m := range makers {
		if _, err := os.Stat(p.Host.Path(m.program)); err == nil {
			return m, nil
		}
	}
	return maker{}, fmt.Errorf("%w: it has no tool to make an initrd that reboots if it does not find its disk: install "+
		"initramfs-tools or dracut there (the initrds of mkinitcpio wait for a person)", ErrHost)
}

// makeInitrd has the host make an initrd for the kernel, as it does for its own.
func (p Place) makeInitrd(ctx context.Context, k Kernel) error {
	ctx, cancel := context.WithTimeout(ctx, initrdTime)
	defer cancel()
	p.buildModules(ctx, k)
	inHost := filepath.Join(p.Loader.Dir(k.ID), bootloader.Initrd)
	half := inHost + ".new"
	m, err := p.maker()
	if err != nil {
		return err
	}
	var args []string
	for _, a := range m.command {
		args = append(args, strings.NewReplacer("FILE", half, "KERNEL", k.Release).Replace(a))
	}
	if out, err := p.Host.Run(ctx, nil, args...); err != nil {
		return errors.Join(err, os.RemoveAll(p.Host.Path(half)))
	} else if st, err := os.Stat(p.Host.Path(half)); err != nil || st.Size() == 0 {
		return fmt.Errorf("%s has made no initrd: %s", m.program, out)
	}
	if err := durable.SyncFS(p.Host.Path(filepath.Dir(half))); err != nil {
		return err
	}
	return errors.Join(os.Rename(p.Host.Path(half), p.Host.Path(inHost)),
		durable.SyncFS(p.Host.Path(filepath.Dir(half))))
}

// hostInitrds are the names that tools give the initrds of the host's own kernels.
var hostInitrds = []string{"/boot/initrd.img-*", "/boot/initramfs-*.img"}

// Renew makes the initrds of kernels again if the host has made one for its own kernels since: disks may have other
// names now. An old one stays if that fails. It returns the releases of those that are new.
func (p Place) Renew(ctx context.Context, kernels []Kernel) (renewed []string, errs error) {
	for _, k := range kernels {
		is, err := p.renew(ctx, k)
		if is {
			renewed = append(renewed, k.Release)
		}
		errs = errors.Join(errs, err)
	}
	return renewed, errs
}

// renew reports whether there is a new initrd.
func (p Place) renew(ctx context.Context, k Kernel) (bool, error) {
	ours, err := os.Stat(p.Host.Path(filepath.Join(p.Loader.Dir(k.ID), bootloader.Initrd)))
	if err != nil {
		return false, fmt.Errorf("cannot find out how old the initrd of %s is: %w", k.Release, err)
	}
	newer := false
	for _, pattern := range hostInitrds {
		names, err := filepath.Glob(p.Host.Path(pattern))
		if err != nil {
			return false, err
		}
		for _, name := range names {
			st, err := os.Stat(name)
			newer = newer || err == nil && st.ModTime().After(ours.ModTime())
		}
	}
	if !newer {
		return false, nil
	}
	if err := cmp.Or(p.haveRoom(map[string]int64{filepath.Dir(filepath.Dir(p.Loader.Dir(k.ID))): roomForInitrd,
		"/var/tmp": roomForInitrd}), p.makeInitrd(ctx, k)); err != nil {
		return false, fmt.Errorf("cannot make the initrd of %s again: %w", k.Release, err)
	}
	return true, nil
}

// buildModules has the host build the modules that it has only the source of (dkms(8)). One that cannot be built is no
// error here: if the host needs it to start, the kernel does not come up, and the one before does.
func (p Place) buildModules(ctx context.Context, k Kernel) {
	if _, err := os.Stat(p.Host.Path("/usr/sbin/dkms")); err == nil {
		_, _ = p.Host.Run(ctx, nil, "dkms", "autoinstall", "-k", k.Release)
	}
}

// Remove removes a kernel from the host root: its entry first, then its files and, if asked, the modules, unless the
// distribution has a kernel of that release now. It is no error if some or all of it is gone.
func (p Place) Remove(ctx context.Context, k Kernel, modules bool) error {
	if err := p.Loader.Remove(ctx, k.ID); err != nil {
		return fmt.Errorf("cannot remove the kernel %s from the host root: %w", k.Release, err)
	}
	if !modules {
		return nil
	}
	if err := p.removeModules(k); err != nil {
		return fmt.Errorf("cannot remove the modules of the kernel %s from the host root: %w", k.Release, err)
	}
	return nil
}

func (p Place) removeModules(k Kernel) error {
	at := p.Host.Path(filepath.Join(modulesDir, k.Release))
	half := p.Host.Path(filepath.Join(modulesDir, unfinished+k.Release))
	if err := durable.RemoveAll(half); err != nil {
		return err
	}
	const longest = 256
	build, err := durable.ReadRegular(filepath.Join(at, marker), longest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || strings.TrimSpace(string(build)) != k.Build {
		return err
	}
	for _, own := range []string{p.Host.Path("/boot/vmlinuz-" + k.Release), filepath.Join(at, "vmlinuz")} {
		if _, err := os.Lstat(own); err == nil { // a package has come for it
			return os.Remove(filepath.Join(at, marker))
		}
	}
	if err := os.Rename(at, half); err != nil { // a directory without some of its modules has no final name
		return err
	}
	return durable.RemoveAll(half)
}
