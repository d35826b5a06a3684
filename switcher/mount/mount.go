// Package mount joins a staged root into one mounted tree and moves trees into place, with the promise that nothing
// is visible under a name until it is complete.
//
// Everything goes through the file-descriptor mount API (fsopen, fsmount, open_tree, move_mount; Linux 5.2): a tree is
// first a detached mount held by a descriptor, may be read through [Tree.Path], and vanishes with the descriptor when
// it was never attached. A composefs root is an overlay of an EROFS image (names, owners, modes, xattrs) and a
// data-only layer of content objects (Linux 6.5; the EROFS image is mounted from a file where the kernel can, 6.12,
// and through a loop device where it cannot).
package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Tree is a detached mount, or the place of an attached one. Close drops the descriptor; a tree that was never
// attached is unmounted by that.
type Tree struct{ file *os.File }

func newTree(fd int, name string) *Tree { return &Tree{os.NewFile(uintptr(fd), name)} }

// Path is a path to the root of the tree that is valid in this process for as long as the tree is open.
func (t *Tree) Path() string { return "/proc/self/fd/" + strconv.Itoa(int(t.file.Fd())) }

// Close drops the descriptor.
func (t *Tree) Close() error { return t.file.Close() }

// Clone makes a detached copy of the mount that holds path, with path as its root: a bind mount without a place.
// With recursive, mounts below path are part of the copy. The copy is private: what is mounted in it later does not
// appear in the original, nor does taking it apart.
func Clone(path string, recursive bool) (*Tree, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return nil, fmt.Errorf("cannot clone the mount of %s: %w", path, err)
	}
	tree := newTree(fd, path)
	private := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &private); err != nil {
		tree.Close()
		return nil, fmt.Errorf("cannot make the copy of %s private: %w", path, err)
	}
	return tree, nil
}

// Tmpfs makes a detached tmpfs. Options are those of mount(8), for example {"mode", "1777"}.
func Tmpfs(attrs int, options ...[2]string) (*Tree, error) {
	fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot open a tmpfs: %w", err)
	}
	fs := os.NewFile(uintptr(fd), "tmpfs")
	defer fs.Close()
	for _, o := range options {
		if err := retry(func() error { return unix.FsconfigSetString(fd, o[0], o[1]) }); err != nil {
			return nil, fmt.Errorf("cannot set tmpfs option %s=%s: %w", o[0], o[1], err)
		}
	}
	return create(fs, attrs)
}

// create turns a configured file system context into a detached mount.
func create(fs *os.File, attrs int) (*Tree, error) {
	fd := int(fs.Fd())
	if err := retry(func() error { return unix.FsconfigCreate(fd) }); err != nil {
		return nil, fmt.Errorf("cannot create the %s superblock: %w%s", fs.Name(), err, kernelSays(fd))
	}
	var mfd int
	err := retry(func() (err error) {
		mfd, err = unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attrs)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make a %s mount: %w%s", fs.Name(), err, kernelSays(fd))
	}
	return newTree(mfd, fs.Name()), nil
}

// retry calls again when a signal came between: fsconfig(2) and fsmount(2) can be interrupted while they wait for their
// lock, and the Go runtime sends signals to itself.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// kernelSays reads what the kernel wrote about a failed fsconfig; fsopen(2) keeps it as messages in the descriptor.
func kernelSays(fd int) string {
	const longest = 1024 // a kernel log line
	buf := make([]byte, longest)
	n, err := unix.Read(fd, buf)
	if err != nil || n <= 2 {
		return ""
	}
	return " (kernel: " + string(buf[2:n]) + ")"
}

// Attach moves the tree to the directory at, which must exist. The tree stays readable through [Tree.Path].
func (t *Tree) Attach(at string) error {
	err := unix.MoveMount(int(t.file.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("cannot mount at %s: %w", at, err)
	}
	return nil
}

// SetReadOnly sets or clears the read-only flag of the tree's topmost mount; the file system itself stays as it is.
func (t *Tree) SetReadOnly(ro bool) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if !ro {
		attr = unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	}
	if err := unix.MountSetattr(int(t.file.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("cannot change the mount's read-only flag: %w", err)
	}
	return nil
}

// Detach unmounts everything mounted at path, and below it, however many times it was mounted over. A path where
// nothing is mounted is not an error.
func Detach(path string) error {
	const layers = 64 // a bound on a loop, far above what can be stacked by accident
	for range layers {
		mounted, err := IsMountPoint(path)
		if err != nil || !mounted {
			return err
		}
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("cannot unmount %s: %w", path, err)
		}
	}
	return fmt.Errorf("cannot unmount %s: still mounted after %d tries", path, layers)
}

// IsMountPoint tells whether a mount is attached at path. A missing path is no mount point.
func IsMountPoint(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot look at %s: %w", path, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Root names what a composefs root is joined from.
type Root struct {
	// CFS is the composefs image: an EROFS file.
	CFS string
	// Objects is the directory of content objects.
	Objects string
	// Graft is a directory laid over the image, or "" for none.
	Graft string
	// Source is the text that /proc/self/mountinfo shows as the mount's source.
	Source string
	// Scratch is an empty directory on a tmpfs that this call may mount on for a moment.
	Scratch string
}

// Composefs joins a root into a detached read-only tree.
//
// Layers of an overlay must be attached mounts before Linux 6.15, so the EROFS image is attached at r.Scratch and let
// go again: the overlay keeps clones of its own. The image file is opened through a clone of its mount, because
// an open file on the mount at /var would keep it from being unmounted at shutdown.
func Composefs(r Root) (*Tree, error) {
	dir, err := Clone(filepath.Dir(r.CFS), false)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	meta, err := erofs(filepath.Join(dir.Path(), filepath.Base(r.CFS)))
	if err != nil {
		return nil, fmt.Errorf("cannot mount %s: %w", r.CFS, err)
	}
	defer meta.Close()
	if err := os.MkdirAll(r.Scratch, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make a mount point: %w", err)
	}
	if err := Detach(r.Scratch); err != nil {
		return nil, err
	}
	if err := meta.Attach(r.Scratch); err != nil {
		return nil, err
	}
	tree, err := overlay(r)
	return tree, errors.Join(err, Detach(r.Scratch), os.Remove(r.Scratch))
}

func overlay(r Root) (*Tree, error) {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot open an overlay: %w", err)
	}
	fs := os.NewFile(uintptr(fd), "overlay")
	defer fs.Close()
	// A mount option is at most 255 bytes long, so layers are named by short paths through descriptors.
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	short := func(path string) (string, error) {
		f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", fmt.Errorf("cannot open an overlay layer: %w", err)
		}
		open = append(open, f)
		return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())), nil
	}
	lower := ""
	if r.Graft != "" {
		graft, err := short(r.Graft)
		if err != nil {
			return nil, err
		}
		lower = graft + ":"
	}
	meta, err := short(r.Scratch)
	if err != nil {
		return nil, err
	}
	objects, err := short(r.Objects)
	if err != nil {
		return nil, err
	}
	lower += meta + "::" + objects
	for _, o := range [][2]string{{"source", r.Source}, {"lowerdir", lower}, {"metacopy", "on"}, {"redirect_dir", "on"}} {
		if err := retry(func() error { return unix.FsconfigSetString(fd, o[0], o[1]) }); err != nil {
			return nil, fmt.Errorf("cannot set overlay option %s: %w%s", o[0], err, kernelSays(fd))
		}
	}
	return create(fs, unix.MOUNT_ATTR_RDONLY)
}

// erofs mounts an EROFS image, straight from the file where the kernel can.
func erofs(file string) (*Tree, error) {
	tree, err := erofsFrom(file)
	if errors.Is(err, unix.ENOTBLK) || errors.Is(err, unix.ELOOP) {
		// Before Linux 6.12, on tmpfs, or where a file-backed image counts as a stacked file system.
		loop, lerr := attachLoop(file)
		if lerr != nil {
			return nil, errors.Join(err, lerr)
		}
		defer loop.Close() // the device goes with its last mount (autoclear)
		return erofsFrom(loop.Name())
	}
	return tree, err
}

func erofsFrom(source string) (*Tree, error) {
	fd, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot open an erofs: %w", err)
	}
	fs := os.NewFile(uintptr(fd), "erofs")
	defer fs.Close()
	if err := retry(func() error { return unix.FsconfigSetFlag(fd, "ro") }); err != nil {
		return nil, fmt.Errorf("cannot set erofs option ro: %w", err)
	}
	if err := retry(func() error { return unix.FsconfigSetString(fd, "source", source) }); err != nil {
		return nil, fmt.Errorf("cannot set the erofs image: %w%s", err, kernelSays(fd))
	}
	return create(fs, unix.MOUNT_ATTR_RDONLY)
}

// attachLoop binds file to a free loop device that frees itself after its last user.
func attachLoop(file string) (*os.File, error) {
	backing, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("cannot open the image: %w", err)
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot ask for a loop device: %w", err)
	}
	defer control.Close()
	const tries = 16 // another process may take the device between the two calls
	for range tries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("cannot get a free loop device: %w", err)
		}
		dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("cannot open the loop device: %w", err)
		}
		conf := unix.LoopConfig{Fd: uint32(backing.Fd())}
		conf.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &conf)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("cannot configure the loop device: %w", err)
		}
	}
	return nil, fmt.Errorf("cannot configure a loop device: every one was taken by others, %d times", tries)
}
