package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/fsverity"
)

// Putter stores the content of a regular file, size bytes read from r, and returns its digest.
type Putter func(r io.Reader, size int64) (fsverity.Digest, error)

// Noter is called with each entry of a layer that was applied, and with the object of its content: the zero value if it
// has none. It must not keep the header. What it saw is what [Tree.Replay] needs.
type Noter func(hdr *tar.Header, object fsverity.Digest) error

// Add applies an uncompressed layer. The tree cannot be used after an error.
func (t *Tree) Add(stream io.Reader, put Putter) error {
	return t.addNoted(stream, put, SkipNote)
}

// addNoted is [Tree.Add], and calls note.
func (t *Tree) addNoted(stream io.Reader, put Putter, note Noter) error {
	t.layer++
	var object fsverity.Digest
	putNoted := func(r io.Reader, size int64) (d fsverity.Digest, err error) {
		object, err = put(r, size)
		return object, err
	}
	in := &fault{r: stream}
	archive := tar.NewReader(in)
	for {
		hdr, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		// Next returns the entry together with an error about its name; splitPath decides about names.
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return in.blame(fmt.Errorf("%w: %v", ErrLayer, err))
		}
		object = fsverity.Digest{}
		if err := t.add(hdr, &contents{archive, in, nil}, putNoted); err != nil {
			return err
		}
		if err := note(hdr, object); err != nil {
			return err
		}
	}
}

// fault remembers the error that a stream ended with, to distinguish a broken archive from one that was not received,
// and how much was read.
type fault struct {
	r    io.Reader
	err  error
	read int64
}

func (f *fault) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.read += int64(n)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// blame returns the error of the stream if it had one, else err.
func (f *fault) blame(err error) error {
	if f.err != nil {
		return f.err
	}
	return err
}

// contents reads a file from the archive and remembers the error.
type contents struct {
	r      io.Reader
	stream *fault
	err    error
}

func (c *contents) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		c.err = c.stream.blame(fmt.Errorf("%w: %v", ErrLayer, err))
		return n, c.err
	}
	return n, err
}

// add applies an entry.
func (t *Tree) add(hdr *tar.Header, content *contents, put Putter) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	path, err := splitPath(hdr.Name)
	if err != nil {
		return err
	}
	if len(path) == 0 {
		return t.describeRoot(hdr)
	}
	if done, err := t.whiteout(path); done || err != nil {
		return err
	}
	dir, err := t.parent(path)
	if err != nil {
		return err
	}
	name := path[len(path)-1]
	switch hdr.Typeflag {
	case tar.TypeDir:
		return t.addDir(dir, name, hdr)
	case tar.TypeLink:
		return t.addLink(dir, name, hdr)
	}
	n, err := t.newInode(hdr)
	if err != nil {
		return err
	}
	if n.IsRegular() {
		if err := t.putContent(n, content, put); err != nil {
			return err
		}
	}
	return t.set(dir, name, n)
}

// describeRoot applies an entry for the root directory.
func (t *Tree) describeRoot(hdr *tar.Header) error {
	if hdr.Typeflag != tar.TypeDir {
		return fmt.Errorf("%w: the root directory is an entry of type %q", ErrLayer, hdr.Typeflag)
	}
	return t.describe(t.root, hdr)
}

// addDir makes a directory, or changes the attributes of an existing one.
func (t *Tree) addDir(dir *Inode, name string, hdr *tar.Header) error {
	n := dir.Child(name)
	if n == nil || !n.IsDir() {
		n = newDir(dir.path + 1 + len(name))
	}
	if err := t.describe(n, hdr); err != nil {
		return err
	}
	return t.set(dir, name, n)
}

// addLink gives an inode of this layer or a lower one another name. The attributes of the entry are ignored, because
// tools do not fill them in reliably.
func (t *Tree) addLink(dir *Inode, name string, hdr *tar.Header) error {
	target, err := splitPath(hdr.Linkname)
	if err != nil {
		return err
	}
	if len(target) == 0 {
		return fmt.Errorf("%w: the hard link %q points to the root directory", ErrLayer, hdr.Name)
	}
	_, n, err := t.find(target)
	if err != nil {
		return err
	}
	if n == nil {
		return fmt.Errorf("%w: the hard link %q points to %q, which does not exist", ErrLayer, hdr.Name, hdr.Linkname)
	}
	if n.IsDir() {
		return fmt.Errorf("%w: the hard link %q points to the directory %q", ErrLayer, hdr.Name, hdr.Linkname)
	}
	return t.set(dir, name, n)
}

// newInode makes the inode of an entry, without content.
func (t *Tree) newInode(hdr *tar.Header) (*Inode, error) {
	n := &Inode{}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		n.Mode, n.Size = unix.S_IFREG, hdr.Size
	case tar.TypeSymlink:
		n.Mode, n.Target = unix.S_IFLNK, strings.Clone(hdr.Linkname)
	case tar.TypeChar:
		n.Mode = unix.S_IFCHR
	case tar.TypeBlock:
		n.Mode = unix.S_IFBLK
	case tar.TypeFifo:
		n.Mode = unix.S_IFIFO
	default:
		return nil, fmt.Errorf("%w: %q has the unknown type %q", ErrLayer, hdr.Name, hdr.Typeflag)
	}
	if err := t.checkTarget(n, hdr); err != nil {
		return nil, err
	}
	if err := setDevice(n, hdr); err != nil {
		return nil, err
	}
	return n, t.describe(n, hdr)
}

// checkTarget checks the target of a symbolic link. It can point anywhere: it is never followed out of the tree.
func (t *Tree) checkTarget(n *Inode, hdr *tar.Header) error {
	if n.Type() != unix.S_IFLNK {
		return nil
	}
	if n.Target == "" || strings.ContainsRune(n.Target, 0) {
		return fmt.Errorf("%w: the symbolic link %q has the target %q", ErrLayer, hdr.Name, n.Target)
	}
	if len(n.Target) > maxTarget {
		return fmt.Errorf("%w: the target of %q has %d bytes, more than %d", ErrLimit, hdr.Name, len(n.Target),
			maxTarget)
	}
	return t.charge(len(n.Target))
}

// setDevice sets the device number, whose parts have 12 and 20 bits in the kernel.
func setDevice(n *Inode, hdr *tar.Header) error {
	if n.Type() != unix.S_IFCHR && n.Type() != unix.S_IFBLK {
		return nil
	}
	if hdr.Devmajor < 0 || hdr.Devmajor >= 1<<12 || hdr.Devminor < 0 || hdr.Devminor >= 1<<20 {
		return fmt.Errorf("%w: the device %q has the number %d:%d", ErrLayer, hdr.Name, hdr.Devmajor, hdr.Devminor)
	}
	n.Major, n.Minor = uint32(hdr.Devmajor), uint32(hdr.Devminor)
	if n.Type() == unix.S_IFCHR && n.Major == 0 && n.Minor == 0 {
		return fmt.Errorf("%w: %q is a whiteout of overlayfs and not of OCI", ErrLayer, hdr.Name)
	}
	return nil
}

// describe sets mode, owner, time and extended attributes.
func (t *Tree) describe(n *Inode, hdr *tar.Header) error {
	if hdr.Uid < 0 || hdr.Uid >= math.MaxUint32 || hdr.Gid < 0 || hdr.Gid >= math.MaxUint32 {
		return fmt.Errorf("%w: %q belongs to %d:%d", ErrLayer, hdr.Name, hdr.Uid, hdr.Gid)
	}
	xattrs, err := t.xattrs(hdr)
	if err != nil {
		return err
	}
	n.Mode = n.Type() | uint32(hdr.Mode)&0o7777
	if n.Type() == unix.S_IFLNK {
		n.Mode = unix.S_IFLNK | 0o777 // a link has no mode of its own
	}
	n.UID, n.GID = uint32(hdr.Uid), uint32(hdr.Gid)
	n.Mtime, n.MtimeNs = hdr.ModTime.Unix(), uint32(hdr.ModTime.Nanosecond())
	n.Xattrs = xattrs
	return nil
}

// putContent passes the content of a file to put and sets its digest.
func (t *Tree) putContent(n *Inode, content *contents, put Putter) error {
	if n.Size == 0 {
		return nil
	}
	if n.Size > maxFile {
		return fmt.Errorf("%w: a file has %d bytes, more than %d", ErrLimit, n.Size, int64(maxFile))
	}
	if t.content += n.Size; t.content > maxContent {
		return fmt.Errorf("%w: the files have more than %d bytes", ErrLimit, int64(maxContent))
	}
	object, err := put(content, n.Size)
	if content.err != nil {
		return content.err
	}
	n.Object = object
	return err
}
