// Package mount joins a staged root into one mounted tree and attaches trees. It promises that nothing is visible at a
// path before it is complete.
//
// It uses the file-descriptor mount API (fsopen, fsmount, open_tree, move_mount; Linux 5.2): a tree is first a detached
// mount held by a descriptor. It can be read through [Tree.Path], and is unmounted with the descriptor unless it was
// attached. A composefs root is an overlay (Linux 6.5) of an EROFS image, which has names, owners, modes and xattrs,
// and a data-only layer of content objects. The EROFS image is mounted from the file (Linux 6.12), or through a loop
// device where the kernel cannot do that.
package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Tree is a mount held by a descriptor, attached or not.
type Tree struct{ file *os.File }

func newTree(fd int, name string) *Tree { return &Tree{os.NewFile(uintptr(fd), name)} }

// Path returns a path to the root of the tree. It is valid in this process, until the tree is closed.
func (t *Tree) Path() string { return "/proc/self/fd/" + strconv.Itoa(int(t.file.Fd())) }

// Close closes the descriptor. A tree that was never attached is unmounted.
func (t *Tree) Close() error { return t.file.Close() }

// Clone returns a detached copy of the mount that path is on, with path as its root: a bind mount that is attached
// nowhere. With recursive, the copy includes the mounts below path. The copy is private: later mounts and unmounts in
// it do not affect the original. An automount at path is not triggered.
func Clone(path string, recursive bool) (*Tree, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_NO_AUTOMOUNT)
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

// Tmpfs returns a detached tmpfs. attrs are MOUNT_ATTR_ flags; options are those of tmpfs(5), for example {"mode",
// "1777"}.
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

// create returns a detached mount of a configured file system context.
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

// retry repeats a call that a signal interrupts: fsconfig(2) and fsmount(2) can be interrupted while they wait for
// their lock, and the Go runtime sends signals to itself.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// kernelSays returns the kernel's message about a failed call, which can be read from the context (fsopen(2)); "" for
// none.
func kernelSays(fd int) string {
	const longest = 1024 // a kernel log line
	buf := make([]byte, longest)
	n, err := unix.Read(fd, buf)
	if err != nil || n <= 2 {
		return ""
	}
	return " (kernel: " + string(buf[2:n]) + ")"
}

// Attach mounts the tree at an existing directory. The tree can still be read through [Tree.Path].
func (t *Tree) Attach(at string) error {
	err := unix.MoveMount(int(t.file.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("cannot mount at %s: %w", at, err)
	}
	return nil
}

// SetReadOnly sets or clears the read-only flag of the mount at the tree's root. The file system itself is unchanged.
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

// AllowAll clears the flags of the mount at the tree's root that restrict its files: noexec, nosuid, nodev and
// nosymfollow.
func (t *Tree) AllowAll() error {
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV |
		unix.MOUNT_ATTR_NOSYMFOLLOW}
	if err := unix.MountSetattr(int(t.file.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("cannot clear the mount's noexec, nosuid and nodev flags: %w", err)
	}
	return nil
}

// Detach unmounts everything at path and below it, however many mounts are stacked there. It is no error if nothing is
// mounted.
func Detach(path string) error {
	const layers = 64 // bounds the loop, far above what is ever stacked by accident
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

// IsMountPoint reports whether something is mounted at path. A missing path is no mount point; an
// automount is one, and is not triggered.
func IsMountPoint(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot check whether %s is a mount point: %w", path, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Root names the parts of a composefs root.
type Root struct {
	// CFS is the composefs image: an EROFS file.
	CFS string
	// Objects is the directory of content objects.
	Objects string
	// Graft is the directory that is laid over the image; "" for none.
	Graft string
	// Source is the mount's source in /proc/self/mountinfo.
	Source string
	// Scratch is an empty directory on a tmpfs, which is mounted on during the call and then removed.
	Scratch string
	// Numbers are the owners that the image's files show instead of their own. Those of the graft are shown as they are.
	Numbers Numbers
	// Verity says how much of the root the kernel has to verify.
	Verity Verity
}

// Composefs returns a root as a detached, read-only tree. The error is an [ErrNumbers] if the kernel cannot show the
// image's files with other numbers.
//
// Before Linux 6.15, layers of an overlay must be attached mounts. So the EROFS image is attached at r.Scratch for a
// moment; the overlay keeps a clone of it. The image file is opened through a clone of its mount, because an open file
// on the mount of /var would keep that from being unmounted at shutdown.
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
	if err := meta.ShowNumbers(r.Numbers); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.Scratch, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make a mount point: %w", err)
	}
	if err := Detach(r.Scratch); err != nil {
		return nil, err
	}
	if err := meta.Attach(r.Scratch); err != nil {
		return nil, err
	}
	tree, err := verified(r)
	return tree, errors.Join(err, Detach(r.Scratch), os.Remove(r.Scratch))
}

// overlay joins the layers, of which the EROFS image is attached at r.Scratch.
func overlay(r Root, verity bool) (*Tree, error) {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot open an overlay: %w", err)
	}
	fs := os.NewFile(uintptr(fd), "overlay")
	defer fs.Close()
	// A mount option has at most 255 bytes, so layers are given by short paths through descriptors.
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
	options := [][2]string{{"source", r.Source}, {"lowerdir", lower}, {"metacopy", "on"}, {"redirect_dir", "on"}}
	if verity {
		options = append(options, [2]string{"verity", "require"})
	}
	for _, o := range options {
		if err := retry(func() error { return unix.FsconfigSetString(fd, o[0], o[1]) }); err != nil {
			return nil, fmt.Errorf("cannot set overlay option %s: %w%s", o[0], err, kernelSays(fd))
		}
	}
	return create(fs, unix.MOUNT_ATTR_RDONLY)
}

// erofs returns a mount of an EROFS image: of the file itself where the kernel can do that, otherwise of a loop device.
func erofs(file string) (*Tree, error) {
	tree, err := erofsFrom(file)
	if errors.Is(err, unix.ENOTBLK) || errors.Is(err, unix.ELOOP) {
		// Before Linux 6.12, on tmpfs, or if a mount from a file would stack too many file systems.
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

// attachLoop returns a loop device of the file, which the kernel frees when it is not used any more.
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
	return nil, fmt.Errorf("cannot configure a loop device: others took each free one, %d times", tries)
}
