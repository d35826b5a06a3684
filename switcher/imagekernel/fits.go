package imagekernel

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/bootloader"
	"github.com/updatectl/updatectl/switcher/graft"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// This file answers whether a kernel can be installed on this host.

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
