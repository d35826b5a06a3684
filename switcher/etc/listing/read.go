package listing

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/owned"
)

// The bounds of what others than root can put into an /etc. It is read and copied while services are away, and the
// same disk has the record. More than that is not carried over, and is named.
const (
	maxForeignFile = 256 << 20 // bytes of data in one file
	maxForeign     = 1 << 30   // bytes of data in one directory of others, and below it
	maxForeignMany = 100_000   // paths in it
	maxForeignAttr = 64 << 20  // bytes of extended attributes in it, which are kept in memory
	maxForeignSize = 2 << 40   // bytes of one file with its holes: the file system of the copy may take no larger one
	maxPath        = 1 << 10   // bytes of a path; the kernel takes four times as many (PATH_MAX)
	maxDepth       = 64        // directories in a path
)

// Directory is what is in an /etc.
type Directory struct {
	Tree    Tree
	Mounts  []string // mount points, which are not crossed
	LeftOut []string // what is too large to be listed, with everything below it
	Notes   []string // what is not listed
}

// Read reads a directory, which may be given as /proc/self/fd/N.
func Read(dir string) (Directory, error) {
	d := Directory{Tree: Tree{}}
	top, err := openDir(dir)
	if err != nil {
		return d, err
	}
	defer top.Close()
	return d, d.list(top, ".", nil)
}

// ReadEntry returns what is at a path below a directory, and false where something is mounted, or a socket or FIFO.
func ReadEntry(dir, name string) (Entry, bool, error) {
	d := Directory{Tree: Tree{}}
	top, err := openDir(dir)
	if err != nil {
		return Entry{}, false, err
	}
	defer top.Close()
	f, err := openAt(top, name, strict)
	if errors.Is(err, unix.EXDEV) {
		return Entry{}, false, nil
	}
	if err != nil {
		return Entry{}, false, err
	}
	defer f.Close()
	err = d.list(f, name, nil)
	e, ok := d.Tree[name]
	return e, ok, err
}

// foreign is a directory that others than root can write in, with all below it, or such a file, and what is left of its
// bounds.
type foreign struct {
	top                string
	paths, data, attrs int64
	full               bool // whether it has more paths
}

// entered returns the foreign directory or file that a path is in or is, nil for none.
func (f *foreign) entered(e Entry, rel string) *foreign {
	if f == nil && e.othersWrite() {
		return &foreign{top: rel, paths: maxForeignMany, data: maxForeign, attrs: maxForeignAttr}
	}
	return f
}

// OthersChange reports whether others than root can change a file, or exchange it.
func (e Entry) OthersChange() bool { return e.Foreign || e.othersWrite() }

// othersWrite reports whether others than root can write in a file or directory.
func (e Entry) othersWrite() bool {
	mode := e.Mode
	if e.Kind == Link {
		mode = 0
	}
	_, acl := e.Xattrs[owned.ACL]
	return owned.WriterOf(mode, e.UID, e.GID, acl) != owned.Nobody
}

// most returns how many bytes of data a file may have, [math.MaxInt64] for any.
func (f *foreign) most() int64 {
	if f == nil {
		return math.MaxInt64
	}
	return min(maxForeignFile, f.data)
}

// mostAttrs returns how many bytes of extended attributes a path may have. Files of root are bounded, too: whether
// others can write in one is only known from its attributes.
func (f *foreign) mostAttrs() int64 {
	if f == nil {
		return maxForeignAttr
	}
	return f.attrs
}

// list adds the file of a descriptor, and what is below it, to the tree.
func (d *Directory) list(f *os.File, rel string, in *foreign) error {
	e, open, ok, err := readEntry(f, in.mostAttrs())
	if open != nil {
		defer open.Close()
	}
	own := in.entered(e, rel)
	switch {
	case errors.Is(err, unix.EAGAIN) && e.UID != 0: // who owns a file can take a lease
		d.leaveOut(rel, "its owner holds a lease on it (fcntl(2))")
		return nil
	case errors.Is(err, errBound) && rel != ".": // whoever can write in a file can set them
		d.leaveOut(rel, "its extended attributes are more than can be read, or than what is left of "+
			units.BytesSize(maxForeignAttr)+" for its directory")
		return nil
	case err != nil:
		return err
	case !ok:
		d.Notes = append(d.Notes, rel+": a socket or FIFO; not carried over")
		return nil
	}
	own.takeAttrs(e)
	if rel == "." {
		e.Flags = 0 // a protected /etc itself could not be renamed
	}
	if e.Kind == File {
		if ok, err = d.sum(&e, open, rel, own); err != nil || !ok {
			return err
		}
	}
	if in != nil {
		e.Foreign = true
		d.lowerRights(&e, rel)
	}
	d.Tree[rel] = e
	if e.Kind != Dir {
		return nil
	}
	return d.listBelow(open, rel, own)
}

// takeAttrs takes the extended attributes of a path off the bounds.
func (f *foreign) takeAttrs(e Entry) {
	if f == nil {
		return
	}
	for name, value := range e.Xattrs {
		f.attrs -= int64(len(name) + len(value))
	}
}

// sum adds the sum of a file. It returns false if the file has too much data.
func (d *Directory) sum(e *Entry, open *os.File, rel string, in *foreign) (bool, error) {
	sum, read, err := transfer(open, nil, in.most())
	if errors.Is(err, errBound) {
		d.leaveOut(rel, fmt.Sprintf("larger than %s, %s with its holes, or what is left of %s for its directory",
			units.BytesSize(maxForeignFile), units.BytesSize(maxForeignSize), units.BytesSize(maxForeign)))
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if e.Sum = sum; in != nil {
		in.data -= read
	}
	return true, nil
}

// lowerRights takes from a file in a directory of others what gives root's rights to whoever runs it.
func (d *Directory) lowerRights(e *Entry, rel string) {
	if e.Kind != File {
		return
	}
	lowered := e.Mode
	if e.UID == 0 {
		lowered &^= unix.S_ISUID
	}
	if e.GID == 0 {
		lowered &^= unix.S_ISGID
	}
	const capability = "security.capability"
	if _, capable := e.Xattrs[capability]; lowered == e.Mode && !capable {
		return
	}
	delete(e.Xattrs, capability)
	e.Mode = lowered
	d.Notes = append(d.Notes, rel+": its set-id bits or capabilities are not carried over: others than root can write in "+
		"its directory")
}

func (d *Directory) leaveOut(rel, why string) {
	d.LeftOut = append(d.LeftOut, rel)
	d.Notes = append(d.Notes, rel+": not carried over: "+why)
}

// leaveOutRest leaves out what a foreign directory has beyond its bounds.
func (d *Directory) leaveOutRest(in *foreign) {
	if !in.full {
		in.full = true
		d.leaveOut(in.top, fmt.Sprintf("more than %d files; the rest of it", maxForeignMany))
	}
}

// listBelow lists what is in a directory. A file that vanishes meanwhile, on a running host, counts as missing.
func (d *Directory) listBelow(dir *os.File, rel string, in *foreign) error {
	names, err := d.names(dir, in)
	if err != nil {
		return err
	}
	for _, name := range names {
		below := path.Join(rel, name)
		if in != nil && in.paths <= 0 {
			d.leaveOutRest(in)
			return nil
		}
		if len(below) > maxPath || strings.Count(below, "/") > maxDepth {
			d.leaveOut(rel, fmt.Sprintf("what is in it is below %d directories, or has a path of %d bytes", maxDepth, maxPath))
			return nil
		}
		f, err := openAt(dir, name, strict)
		switch {
		case errors.Is(err, unix.EXDEV):
			d.Mounts = append(d.Mounts, below)
			continue
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		}
		if in != nil {
			in.paths--
		}
		err = d.list(f, below, in)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// names returns the names in a directory, sorted; of a foreign one, not more than its bounds allow.
func (d *Directory) names(dir *os.File, in *foreign) ([]string, error) {
	most := -1
	if in != nil {
		most = int(max(in.paths, 1))
	}
	names, err := dir.Readdirnames(most)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if in != nil {
		if _, err := dir.Readdirnames(1); err == nil {
			d.leaveOutRest(in)
			in.paths = min(in.paths, int64(len(names)))
		}
	}
	slices.Sort(names)
	return names, nil
}
