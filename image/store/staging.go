package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/fsverity"
)

const (
	// smallFile is the size in bytes up to which a file is digested in memory first, so that it need not be written if
	// the store has it. 99 % of the files of a server root, with half of its bytes, are smaller.
	smallFile = 1 << 20
	// holeSize is how many zero bytes become a hole.
	holeSize = 64 << 10
)

// Staging is a root that is being staged. Only one goroutine may use it.
type Staging struct {
	store    *Store
	id       string
	dir      string
	buf      []byte
	hasher   fsverity.Hasher
	fresh    map[fsverity.Digest]int64 // sizes of objects that the store did not have
	kept     leftovers
	newBytes int64
	large    int
	sealed   bool    // whether the kernel verifies the new objects
	known    checked // objects of the store that were read since the last full reboot

	unchecked      int64 // bytes and files written since the last look at what is left
	uncheckedFiles int
}

// Begin starts staging the root with that ID, and goes on where an interrupted run has stopped. Call Commit, Abort or
// Suspend at the end.
func (s *Store) Begin(id string) (*Staging, error) {
	if !validID.MatchString(id) {
		return nil, fmt.Errorf("cannot stage a root called %q", id)
	}
	g := &Staging{store: s, id: id, dir: s.path(stagingDir, begun+id), buf: make([]byte, smallFile),
		fresh: map[fsverity.Digest]int64{}, known: readChecked(s)}
	err := dropBegun(s, id)
	if err == nil {
		g.kept, err = adopt(g.dir)
	}
	for _, d := range []string{g.path(objectsDir), g.path(rootsDir), g.path(keptDir)} {
		if err == nil {
			err = ensureDir(d)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot begin staging: %w", AsNoSpace(errors.Join(err, g.Abort())))
	}
	return g, nil
}

func (g *Staging) path(elem ...string) string {
	return filepath.Join(append([]string{g.dir}, elem...)...)
}

// NewBytes returns the bytes of all objects that the store did not have before.
func (g *Staging) NewBytes() int64 { return g.newBytes }

// Put reads a file of size bytes and stores it as an object, unless that exists. It returns the digest. Errors of r
// are returned unchanged. Put is a layer.Putter.
func (g *Staging) Put(r io.Reader, size int64) (fsverity.Digest, error) {
	if size > smallFile {
		return g.putLarge(r, size)
	}
	data := g.buf[:size]
	if _, err := io.ReadFull(r, data); err != nil {
		return fsverity.Digest{}, err
	}
	g.hasher.Reset()
	g.hasher.Write(data)
	d := g.hasher.Digest()
	if g.has(d, size) {
		return d, nil
	}
	err := os.WriteFile(g.path(objectsDir, d.String()), data, 0o444)
	if err == nil {
		g.added(d, size)
		err = g.wrote(size, 1)
	}
	if err != nil {
		return fsverity.Digest{}, fmt.Errorf("cannot write an object: %w", AsNoSpace(err))
	}
	return d, nil
}

// putLarge digests a file while it is written, and removes it if the object exists.
func (g *Staging) putLarge(r io.Reader, size int64) (fsverity.Digest, error) {
	g.large++
	name := g.path("large-" + strconv.Itoa(g.large))
	d, err := g.copyLarge(name, r, size)
	if err != nil {
		_ = os.Remove(name) // it is never continued
		return fsverity.Digest{}, err
	}
	if g.has(d, size) {
		err = os.Remove(name)
	} else if err = os.Rename(name, g.path(objectsDir, d.String())); err == nil {
		g.added(d, size)
	}
	if err != nil {
		return fsverity.Digest{}, fmt.Errorf("cannot write an object: %w", AsNoSpace(err))
	}
	return d, nil
}

// copyLarge writes content to a new file, with holes in place of zeros.
func (g *Staging) copyLarge(name string, r io.Reader, size int64) (fsverity.Digest, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return fsverity.Digest{}, fmt.Errorf("cannot write an object: %w", AsNoSpace(err))
	}
	defer f.Close()
	g.hasher.Reset()
	for at := int64(0); at < size; {
		data := g.buf[:min(size-at, int64(len(g.buf)))]
		if _, err := io.ReadFull(r, data); err != nil {
			return fsverity.Digest{}, err
		}
		g.hasher.Write(data)
		err := writeSparse(f, data, at)
		if err == nil {
			err = g.wrote(int64(len(data)), 0)
		}
		if err != nil {
			return fsverity.Digest{}, fmt.Errorf("cannot write an object: %w", AsNoSpace(err))
		}
		at += int64(len(data))
	}
	if err := f.Truncate(size); err != nil {
		return fsverity.Digest{}, fmt.Errorf("cannot write an object: %w", AsNoSpace(err))
	}
	return g.hasher.Digest(), f.Close()
}

// writeSparse writes data at an offset of a new file, and skips zeros.
func writeSparse(f *os.File, data []byte, at int64) error {
	for start := 0; start < len(data); {
		end := start
		for end < len(data) && !isZero(data[end:min(end+holeSize, len(data))]) {
			end = min(end+holeSize, len(data))
		}
		if end > start {
			if _, err := f.WriteAt(data[start:end], at+int64(start)); err != nil {
				return err
			}
		}
		start = min(end+holeSize, len(data))
	}
	return nil
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// has reports whether an object exists already, with the right content. One with other content is written again, and
// replaced by [Staging.Commit].
func (g *Staging) has(d fsverity.Digest, size int64) bool {
	if _, ok := g.fresh[d]; ok {
		return true
	}
	if g.kept.take(d, size) {
		g.added(d, size)
		return true
	}
	var st unix.Stat_t
	err := unix.Lstat(g.store.object(d), &st)
	return err == nil && st.Size == size && g.store.checkObject(d, g.known, false) == nil
}

func (g *Staging) added(d fsverity.Digest, size int64) {
	g.fresh[d] = size
	g.newBytes += size
}

// object returns the final path of an object.
func (s *Store) object(d fsverity.Digest) string {
	return filepath.Join(s.ObjectsDir(), composefs.ObjectPath(d))
}

// Object opens the content with a digest that Put returned.
func (g *Staging) Object(d fsverity.Digest) (*os.File, error) {
	if _, ok := g.fresh[d]; ok {
		return os.Open(g.path(objectsDir, d.String()))
	}
	return os.Open(g.store.object(d))
}

// CreateCFS creates an empty file for the composefs image of the root, in place of one that was made before.
func (g *Staging) CreateCFS() (*os.File, error) {
	name := g.path(rootsDir, cfsName)
	err := os.Remove(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot create the composefs image: %w", err)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return nil, fmt.Errorf("cannot create the composefs image: %w", AsNoSpace(err))
	}
	return f, nil
}

// Commit makes the root durable and then visible, and returns it.
func (g *Staging) Commit(info Info) (Root, error) {
	if err := g.dropHidden(); err != nil {
		return Root{}, fmt.Errorf("cannot commit the root: %w", err)
	}
	info.Schema, info.NewBytes = Schema, g.newBytes
	data, err := info.encode()
	if err != nil {
		return Root{}, fmt.Errorf("cannot commit the root: %w", err)
	}
	if err := os.WriteFile(g.path(rootsDir, infoName), data, 0o444); err != nil {
		return Root{}, fmt.Errorf("cannot commit the root: %w", AsNoSpace(err))
	}
	// The package promises this order: data, then objects, then the root. Sealing data that is on the disk already writes
	// only its hashes.
	sync := func() error { return durable.SyncFS(g.store.dir) }
	sealAll := func() error { return g.sealAll(info.RootDigest) }
	for _, step := range []func() error{sync, sealAll, g.publishObjects, sync, g.publishRoot} {
		if err := step(); err != nil {
			return Root{}, fmt.Errorf("cannot commit the root: %w", AsNoSpace(err))
		}
	}
	delete(g.store.damagedRoots, g.id)
	_ = g.Abort() // the root exists; Sweep removes what Abort cannot
	return g.store.Root(g.id)
}

// publishObjects moves the new objects to their final names.
func (g *Staging) publishObjects() error {
	shards := map[string]bool{}
	for d := range g.fresh {
		final := g.store.object(d)
		if shard := filepath.Dir(final); !shards[shard] {
			if err := os.MkdirAll(shard, 0o700); err != nil {
				return err
			}
			shards[shard] = true
		}
		if err := replaceFile(g.path(objectsDir, d.String()), final); err != nil {
			return err
		}
		delete(g.store.damaged, d)
		if !g.sealed {
			g.known.note(d, final)
		}
	}
	return writeChecked(g.store, g.known)
}

// replaceFile renames a file, also if there is a directory where it goes.
func replaceFile(from, to string) error {
	err := os.Rename(from, to)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EEXIST) {
		if err = durable.RemoveAll(to); err == nil {
			err = os.Rename(from, to)
		}
	}
	return err
}

// sealAll seals the root, where the file system can do that.
func (g *Staging) sealAll(root fsverity.Digest) (err error) {
	if g.sealed, err = g.store.HasVerity(); err != nil || !g.sealed {
		return err
	}
	clear(g.known) // the kernel knows
	return sealRoot(g.path(rootsDir, cfsName), root, func(d fsverity.Digest) string {
		if _, ok := g.fresh[d]; ok {
			return g.path(objectsDir, d.String())
		}
		return g.store.object(d)
	})
}

// dropHidden drops the new objects that the finished image does not refer to: files of lower layers that an upper
// layer replaced or removed.
func (g *Staging) dropHidden() error {
	f, err := os.Open(g.path(rootsDir, cfsName))
	if err != nil {
		return err
	}
	defer f.Close()
	used := map[fsverity.Digest]bool{}
	if err := addObjects(used, f); err != nil {
		return err
	}
	for d, size := range g.fresh {
		if !used[d] {
			delete(g.fresh, d) // the file is removed with the staging directory
			g.newBytes -= size
		}
	}
	return nil
}

// publishRoot moves the root to its final name.
func (g *Staging) publishRoot() error {
	final := g.store.path(rootsDir, g.id)
	err := os.Rename(g.path(rootsDir), final)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return g.restore(final)
	}
	if err != nil {
		return err
	}
	return durable.SyncDir(g.store.path(rootsDir))
}

// restore replaces the files of a root that is damaged or has lost a part. Other files in its directory stay: the root
// may be running, with its /etc in there. No file is removed before, so that the root stays a way back if the agent is
// killed. image.json comes last, because it makes the root count as complete.
func (g *Staging) restore(final string) error {
	files, err := os.ReadDir(g.path(rootsDir))
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Name() == infoName {
			continue
		}
		if err := replaceFile(g.path(rootsDir, f.Name()), filepath.Join(final, f.Name())); err != nil {
			return err
		}
	}
	if err := durable.SyncDir(final); err != nil {
		return err
	}
	if err := replaceFile(g.path(rootsDir, infoName), filepath.Join(final, infoName)); err != nil {
		return err
	}
	return durable.SyncDir(final)
}

// Abort removes what was staged. It does nothing after Commit.
func (g *Staging) Abort() error {
	if err := durable.RemoveAll(g.dir); err != nil {
		return fmt.Errorf("cannot remove the leftovers of staging: %w", err)
	}
	return nil
}
