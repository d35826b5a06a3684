package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/inventory"
)

// What an interrupted run has staged is kept for the next one that stages the same root: a network that fails, or a
// kill, costs only what was not there yet. A power cut may have damaged any of it, so it is checked when it is used:
// objects by their digests, inventories by their checksums, and the beginning of a blob with the digest of the whole.

const (
	// begun begins the name of a directory in which a root is staged.
	begun = "root-"
	// keptDir has the inventories of interrupted runs, and keptBlob begins the names of the blobs.
	keptDir  = "kept"
	keptBlob = "blob-"
	// keepBegun is how long what was begun is kept.
	keepBegun = 7 * 24 * time.Hour
	// partRoom is how many times the size of a blob must be free for its beginning to be kept: what is in it needs room.
	partRoom = 8
)

// dropBegun removes what was begun of other roots.
func dropBegun(s *Store, id string) error {
	entries, err := os.ReadDir(s.path(stagingDir))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), begun) && e.Name() != begun+id {
			err = errors.Join(err, durable.RemoveAll(s.path(stagingDir, e.Name())))
		}
	}
	return err
}

// begunBytes returns the disk space of what was begun of roots.
func begunBytes(s *Store) (bytes int64) {
	dirs, _ := filepath.Glob(s.path(stagingDir, begun+"*")) // the pattern is well-formed
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil && unix.Lstat(name, &st) == nil {
				bytes += st.Blocks * 512
			}
			return nil
		})
	}
	return bytes
}

// mayGoOn reports whether an entry of the staging directory is what an interrupted run has left of a root.
func mayGoOn(s *Store, e fs.DirEntry) bool {
	id, isBegun := strings.CutPrefix(e.Name(), begun)
	if !isBegun || !e.IsDir() {
		return false
	}
	if _, err := os.Lstat(s.path(rootsDir, id, infoName)); err == nil { // it is complete
		return false
	}
	st, err := e.Info()
	return err == nil && time.Since(st.ModTime()).Abs() < keepBegun
}

// leftovers are what an interrupted run has left.
type leftovers struct {
	dir     string
	objects map[fsverity.Digest]bool // not checked yet
	bytes   int64                    // of the beginnings of blobs
}

// adopt takes over what is in a staging directory, which is made if it is not there. What cannot be taken over is
// removed.
func adopt(dir string) (leftovers, error) {
	l, err := tryAdopt(dir)
	if err != nil {
		if err = durable.RemoveAll(dir); err == nil {
			l, err = tryAdopt(dir)
		}
	}
	return l, err
}

func tryAdopt(dir string) (leftovers, error) {
	l := leftovers{dir: dir, objects: map[fsverity.Digest]bool{}}
	if err := ensureDir(dir); err != nil {
		return l, err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries { // kept comes before roots
		switch name := e.Name(); {
		case name == objectsDir && e.IsDir():
			err = errors.Join(err, l.noteObjects())
		case name == rootsDir && e.IsDir():
			err = errors.Join(err, l.moveInventories())
		case name == keptDir && e.IsDir():
		case strings.HasPrefix(name, keptBlob) && e.Type().IsRegular():
			if st, err := e.Info(); err == nil {
				l.bytes += st.Size()
			}
		default:
			err = errors.Join(err, durable.RemoveAll(l.path(name)))
		}
	}
	return l, err
}

func (l leftovers) path(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

// noteObjects notes the objects that are there.
func (l leftovers) noteObjects() error {
	entries, err := os.ReadDir(l.path(objectsDir))
	for _, e := range entries {
		if d, err := fsverity.Parse(e.Name()); err == nil {
			l.objects[d] = true
		}
	}
	return err
}

// moveInventories moves the inventories to where they cannot be taken for those of this run.
func (l leftovers) moveInventories() error {
	entries, err := os.ReadDir(l.path(rootsDir))
	err = errors.Join(err, ensureDir(l.path(keptDir)))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), inventory.Prefix) {
			err = errors.Join(err, os.Rename(l.path(rootsDir, e.Name()), l.path(keptDir, e.Name())))
		}
	}
	return errors.Join(err, durable.RemoveAll(l.path(rootsDir)))
}

// take reports whether an object is there with that size and the right content, and else removes it.
func (l leftovers) take(d fsverity.Digest, size int64) bool {
	if !l.objects[d] {
		return false
	}
	delete(l.objects, d)
	name := l.path(objectsDir, d.String())
	if err := checkContent(name, d, size); err != nil {
		_ = durable.RemoveAll(name) // writing it again fails if this did
		return false
	}
	return true
}

// ensureDir makes a directory in place of whatever else has its name.
func ensureDir(name string) error {
	err := os.Mkdir(name, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if st, err := os.Lstat(name); err != nil || st.IsDir() {
		return err
	}
	if err := durable.RemoveAll(name); err != nil {
		return err
	}
	return os.Mkdir(name, 0o700)
}

// checkContent returns an error unless a file of ours has that size and that digest.
func checkContent(name string, d fsverity.Digest, size int64) error {
	f, err := durable.OpenRegular(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if has, err := ours(f); err != nil || has != size {
		return errors.Join(err, fmt.Errorf("%w: it has %d bytes", ErrDamaged, has))
	}
	got, err := fsverity.Compute(f)
	if err == nil && got != d {
		err = fmt.Errorf("%w: it has the digest %s", ErrDamaged, got)
	}
	return err
}

// ours returns the size of a file that belongs to root and has no other name, by which something else could be changed.
func ours(f *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	if st.Nlink != 1 || int(st.Uid) != os.Geteuid() {
		return 0, fmt.Errorf("%w: %s has %d names and the owner %d", ErrDamaged, f.Name(), st.Nlink, st.Uid)
	}
	return st.Size, nil
}

// Kept returns what has the inventories of interrupted runs, as a root has its own. Whoever was root before may have
// written them.
func Kept(g *Staging) Root { return Root{Dir: g.path(keptDir)} }

// Part opens the file that has the beginning of a blob of size bytes, which may be empty, to be read and then to be
// written. It is nil where there is too little room to keep one.
func (g *Staging) Part(d digest.Digest, size int64) io.ReadWriteCloser {
	if d.Validate() != nil || size <= 0 || size > maxPart {
		return nil
	}
	f, err := os.OpenFile(g.path(partName(d)), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil
	}
	has, err := ours(f)
	if err == nil {
		err = g.store.CheckRoom(partRoom * max(0, size-has))
	}
	if err != nil {
		f.Close()
		_ = g.DropPart(d) // the whole blob is fetched
		return nil
	}
	return f
}

// IsResumed reports whether an interrupted run has left something for this one.
func IsResumed(g *Staging) bool { return len(g.kept.objects) > 0 || g.kept.bytes > 0 }

// maxPart bounds a blob whose beginning is kept, in bytes.
const maxPart = 64 << 30

// DropPart removes the beginning of a blob, if one is kept.
func (g *Staging) DropPart(d digest.Digest) error {
	if err := os.Remove(g.path(partName(d))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the beginning of a blob: %w", err)
	}
	return nil
}

// partName returns the name of the file with the beginning of a blob.
func partName(d digest.Digest) string { return keptBlob + d.Algorithm().String() + "-" + d.Encoded() }

// Suspend ends the run, and keeps what was staged for the next one.
func (g *Staging) Suspend() error {
	now := time.Now()
	return os.Chtimes(g.dir, now, now)
}
