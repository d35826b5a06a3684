// Package fetchback answers how what was forgotten gets from the host root into the root that runs. It promises that no
// link leads out of the host root, that none is followed where it writes, that a file gets its name when it is complete
// and on the disk, and that what it replaces is kept.
package fetchback

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Order is what to copy, and where.
type Order struct {
	// Host is the directory of the host root, and Root that of the running root.
	Host, Root string
	// Base is the directory in the running root that nothing is written outside of, as an absolute path in it.
	Base string
	// Path is the file or directory to copy, at or below Base: an absolute path in both roots.
	Path string
	// Replaced is the directory that gets what is replaced. It is made when there is something.
	Replaced string
}

// Result is what was copied.
type Result struct {
	// Paths are the files and links that were written, as absolute paths in the root. Those that were the same are not in
	// it.
	Paths []string
	// Replaced is whether something was replaced.
	Replaced bool
	// Notes are for people.
	Notes []string
}

// ErrDifferent means that there is a directory where the host root has a file, or the other way round.
var ErrDifferent = errors.New("it is of another kind here")

// Do copies, with owners by name, modes, extended attributes and times. The error is an ErrDifferent, fs.ErrNotExist if
// the host root has no such path, or one of the file system; what was copied before stays.
func (o Order) Do() (Result, error) {
	c := copier{order: o}
	err := c.open()
	defer c.close()
	if err == nil {
		err = c.parents()
	}
	if err == nil {
		err = c.copy(c.inHost(o.Path))
	}
	if err != nil {
		err = fmt.Errorf("cannot fetch %s from the host root: %w", o.Path, err)
	}
	return c.result, err
}

// copier is one order that is carried out.
type copier struct {
	order         Order
	host          *os.Root
	base          place
	users, groups numbers
	result        Result
	noted         map[string]bool
}

func (c *copier) open() (err error) {
	c.noted = map[string]bool{}
	if c.host, err = os.OpenRoot(c.order.Host); err != nil {
		return err
	}
	root, err := os.OpenRoot(c.order.Root)
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := root.Open(c.inHost(c.order.Base))
	if err != nil {
		return err
	}
	if c.base, err = placeOf(dir); err != nil {
		return err
	}
	if c.users, err = readNumbers(c.host, root, "etc/passwd"); err == nil {
		c.groups, err = readNumbers(c.host, root, "etc/group")
	}
	return err
}

func (c *copier) close() {
	if c.host != nil {
		c.host.Close()
	}
	c.base.close()
}

// inHost returns an absolute path as one in the host root.
func (c *copier) inHost(p string) string { return strings.TrimPrefix(path.Clean(p), "/") }

// inBase returns a path in the host root as one in the base.
func (c *copier) inBase(p string) string {
	if rel := strings.TrimPrefix(p, c.inHost(c.order.Base)); rel != "" {
		return strings.TrimPrefix(rel, "/")
	}
	return "."
}

// parents makes the directories above the path that the running root lacks.
func (c *copier) parents() error {
	var above []string
	for dir := path.Dir(c.inHost(c.order.Path)); len(dir) > len(c.inHost(c.order.Base)); dir = path.Dir(dir) {
		above = append([]string{dir}, above...)
	}
	for _, dir := range above {
		if err := c.directory(dir); err != nil {
			return err
		}
	}
	return nil
}

// copy copies what the host root has at a path.
func (c *copier) copy(p string) error {
	st, err := c.host.Lstat(p)
	if err != nil {
		return err
	}
	switch st.Mode().Type() {
	case fs.ModeDir:
		return c.tree(p)
	case 0, fs.ModeSymlink:
		return c.file(p, st)
	}
	c.note("/" + p + " is no file: not fetched")
	return nil
}

func (c *copier) tree(p string) error {
	if err := c.directory(p); err != nil {
		return err
	}
	dir, err := c.host.Open(p)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	for _, name := range names {
		err = errors.Join(err, c.copy(path.Join(p, name)))
	}
	return err
}

// directory makes a directory as the host root has it, unless there is one.
func (c *copier) directory(p string) error {
	to := c.inBase(p)
	if to == "." {
		return nil
	}
	in, err := c.base.below(path.Dir(to))
	if err != nil {
		return err
	}
	defer in.close()
	name := path.Base(to)
	switch st, err := in.root.Lstat(name); {
	case err == nil && st.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("/%s: %w", p, ErrDifferent)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := in.root.Mkdir(name, 0o700); err != nil {
		return err
	}
	from, err := c.host.Open(p)
	if err != nil {
		return err
	}
	defer from.Close()
	made, err := in.below(name)
	if err != nil {
		return err
	}
	defer made.close()
	return copyAttributes(from, made.dir, c.byName())
}

// file copies a file or link, and keeps what was there.
func (c *copier) file(p string, st fs.FileInfo) error {
	to := c.inBase(p)
	in, err := c.base.below(path.Dir(to))
	if err != nil {
		return err
	}
	defer in.close()
	name := path.Base(to)
	switch now, err := in.root.Lstat(name); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case now.IsDir():
		return fmt.Errorf("/%s: %w", p, ErrDifferent)
	case c.same(p, st, in, name, now):
		return nil
	default:
		if err := c.keep(p, in, name, now); err != nil {
			return fmt.Errorf("cannot keep what is here: %w", err)
		}
	}
	// A name may have 255 bytes. This one has 73.
	tmp := fmt.Sprintf(".updatectl-fetch-%x", sha256.Sum224([]byte(name)))
	if err := in.root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by a killed run
		return err
	}
	err = write(c.host, p, st, in, tmp, c.byName())
	if err == nil {
		err = in.root.Rename(tmp, name)
	}
	if err == nil {
		err = in.dir.Sync()
	}
	if err != nil {
		return errors.Join(err, ignoreAbsence(in.root.Remove(tmp)))
	}
	c.result.Paths = append(c.result.Paths, "/"+p)
	return nil
}

func ignoreAbsence(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// keep copies what is about to be replaced, as it is.
func (c *copier) keep(p string, in place, name string, now fs.FileInfo) error {
	above := filepath.Join(c.order.Replaced, path.Dir(p))
	if err := os.MkdirAll(above, 0o700); err != nil {
		return err
	}
	dir, err := os.Open(above)
	if err != nil {
		return err
	}
	replaced, err := placeOf(dir)
	if err != nil {
		return err
	}
	defer replaced.close()
	c.result.Replaced = true
	return write(in.root, name, now, replaced, path.Base(p), owners{})
}

// write copies a file or link, which was looked at before, to a new name in a directory, and syncs it.
func write(from *os.Root, p string, st fs.FileInfo, to place, name string, o owners) error {
	if st.Mode()&fs.ModeSymlink != 0 {
		target, err := from.Readlink(p)
		if err == nil {
			err = to.root.Symlink(target, name)
		}
		if owner, is := st.Sys().(*syscall.Stat_t); is && err == nil {
			err = to.chownLink(name, o.user(owner.Uid), o.ofGroup(owner.Gid))
		}
		return err
	}
	source, err := openRegular(from, p, st)
	if err != nil {
		return err
	}
	defer source.Close()
	made, err := to.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(made, source)
	if err == nil {
		err = copyAttributes(source, made, o)
	}
	if err == nil {
		err = made.Sync()
	}
	return errors.Join(err, made.Close())
}

// openRegular opens the regular file that was looked at before.
func openRegular(root *os.Root, p string, st fs.FileInfo) (*os.File, error) {
	f, err := root.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	now, err := f.Stat()
	if err == nil && (!now.Mode().IsRegular() || !os.SameFile(st, now)) {
		err = &fs.PathError{Op: "open", Path: p, Err: errReplaced}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

var errReplaced = errors.New("somebody replaced it meanwhile")

// same reports whether the running root has the same file or link already.
func (c *copier) same(p string, st fs.FileInfo, in place, name string, now fs.FileInfo) bool {
	if st.Mode() != now.Mode() || st.Size() != now.Size() {
		return false
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		there, err := c.host.Readlink(p)
		here, herr := in.root.Readlink(name)
		return err == nil && herr == nil && there == here
	}
	a, err := openRegular(c.host, p, st)
	if err != nil {
		return false
	}
	defer a.Close()
	b, err := openRegular(in.root, name, now)
	if err != nil {
		return false
	}
	defer b.Close()
	return sameContent(a, b)
}

func sameContent(a, b io.Reader) bool {
	there, here := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(a, there)
		m, berr := io.ReadFull(b, here)
		if !bytes.Equal(there[:n], here[:m]) {
			return false
		}
		if err != nil || berr != nil {
			return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		}
	}
}

func (c *copier) note(text string) {
	if !c.noted[text] {
		c.noted[text] = true
		c.result.Notes = append(c.result.Notes, text)
	}
}

// byName returns the owners that have the same names in the running root.
func (c *copier) byName() owners {
	return owners{
		uid: func(id uint32) uint32 { return c.translate(c.users, "user", id) },
		gid: func(id uint32) uint32 { return c.translate(c.groups, "group", id) },
	}
}

func (c *copier) translate(n numbers, kind string, id uint32) uint32 {
	name, known := n.names[id]
	if !known {
		return id
	}
	here, is := n.here[name]
	if !is {
		c.note(fmt.Sprintf("%s %s, who owns some of it, is not in this root: it shows %d", kind, name, id))
		return id
	}
	return here
}

// numbers are the names of numbers on the host root, and the numbers of names in the running root.
type numbers struct {
	names map[uint32]string
	here  map[string]uint32
}

func readNumbers(host, root *os.Root, table string) (numbers, error) {
	n := numbers{map[uint32]string{}, map[string]uint32{}}
	there, err := host.ReadFile(table)
	if err != nil {
		return n, err
	}
	here, err := root.ReadFile(table)
	if err != nil {
		return n, err
	}
	each := func(text []byte, do func(name string, id uint32)) {
		for line := range strings.Lines(string(text)) {
			fields := strings.Split(line, ":")
			if len(fields) < 3 {
				continue
			}
			if id, err := strconv.ParseUint(strings.TrimSpace(fields[2]), 10, 32); err == nil {
				do(fields[0], uint32(id))
			}
		}
	}
	each(there, func(name string, id uint32) {
		if _, twice := n.names[id]; !twice {
			n.names[id] = name
		}
	})
	each(here, func(name string, id uint32) { n.here[name] = id })
	return n, nil
}
