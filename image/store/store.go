package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/fsverity"
)

var (
	// ErrNoRoot means that there is no complete root with that ID.
	ErrNoRoot = errors.New("no such root")
	// ErrDamaged means that a root, or an object that it needs, is not what was staged; staging the image again repairs
	// it.
	ErrDamaged = errors.New("it is damaged; `updatectl stage` repairs it")
	// ErrNoSpace means that the file system or a quota is full.
	ErrNoSpace = errors.New("not enough space")
)

const (
	objectsDir = "objects"
	rootsDir   = "roots"
	stagingDir = "staging"
	cfsName    = "root.cfs"
	infoName   = "image.json"
	// maxInfo bounds image.json, in bytes. Real ones have a few hundred.
	maxInfo = 1 << 20
)

// validID matches the ID of a root: the digest of the image's manifest.
var validID = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)

// Store is a directory with objects and roots.
type Store struct {
	dir string
	// damaged has the objects that [Store.Fsck] found damaged, also those of which the kernel reports the right digest.
	damaged map[fsverity.Digest]bool
	// damagedRoots are the roots that it found damaged.
	damagedRoots map[string]bool
}

// Root is a complete root in the store.
type Root struct {
	ID   string
	Dir  string
	Info Info
}

// CFS returns the path of the composefs image.
func (r Root) CFS() string { return filepath.Join(r.Dir, cfsName) }

// At returns the store at dir, which must be an absolute path. It touches nothing: looking into a store that does not
// exist finds no roots.
func At(dir string) *Store { return &Store{dir: dir} }

// Open opens the store at dir and makes its directories where they are missing.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the store: %w", err)
	}
	s := At(dir)
	return s, s.Prepare()
}

// Prepare makes the directories of the store where they are missing.
func (s *Store) Prepare() error {
	for _, d := range []string{s.dir, s.ObjectsDir(), s.path(rootsDir), s.path(stagingDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("cannot open the store: %w", AsNoSpace(err))
		}
	}
	return nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// ObjectsDir returns the directory that overlayfs uses as its data-only layer.
func (s *Store) ObjectsDir() string { return s.path(objectsDir) }

// RootsDir returns the directory of all roots.
func (s *Store) RootsDir() string { return s.path(rootsDir) }

// Root returns the root with that ID. The error is an ErrNoRoot also when the root has lost a part; it can then be
// staged again.
func (s *Store) Root(id string) (Root, error) {
	if !validID.MatchString(id) {
		return Root{}, fmt.Errorf("%w: %q", ErrNoRoot, id)
	}
	r := Root{ID: id, Dir: s.path(rootsDir, id)}
	info, err := readInfo(filepath.Join(r.Dir, infoName))
	if err == nil {
		_, err = os.Lstat(r.CFS())
	}
	if errors.Is(err, os.ErrNotExist) {
		return Root{}, fmt.Errorf("%w: %q", ErrNoRoot, id)
	}
	if err != nil {
		return Root{}, fmt.Errorf("cannot read the root %s: %w", id, err)
	}
	if d := info.Digest; d != "" && d.Algorithm().String()+"-"+d.Encoded() != id {
		return Root{}, fmt.Errorf("cannot read the root %s: %w: %s is about %s", id, ErrDamaged, infoName, d)
	}
	r.Info = info
	return r, nil
}

// Roots returns all complete roots, ordered by ID. The error names the roots that cannot be read; the others are
// returned all the same.
func (s *Store) Roots() ([]Root, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var roots []Root
	var faults []error
	for _, id := range ids {
		r, err := s.Root(id)
		switch {
		case err == nil:
			roots = append(roots, r)
		case !errors.Is(err, ErrNoRoot):
			faults = append(faults, err)
		}
	}
	return roots, errors.Join(faults...)
}

// ids lists the IDs of all roots, complete or not.
func (s *Store) ids() ([]string, error) {
	entries, err := os.ReadDir(s.path(rootsDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the roots: %w", err)
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, nil
}

// readInfo reads image.json. Fields that a newer agent wrote are ignored. The error is an ErrDamaged if it has to be
// made anew.
func readInfo(path string) (Info, error) {
	data, err := durable.ReadRegular(path, maxInfo)
	if errors.Is(err, durable.ErrNotRegular) || errors.Is(err, durable.ErrTooLarge) {
		return Info{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return Info{}, err
	}
	var info Info
	if err := json.Unmarshal(data, &info); err != nil || info.Schema == "" {
		return Info{}, fmt.Errorf("%w: %s: %w", ErrDamaged, path, cmp.Or(err, errors.New("it names no schema")))
	}
	if err := checkSum(data); err != nil {
		return Info{}, fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	if info.Schema != Schema {
		return Info{}, fmt.Errorf("%s has the schema %q, and this agent reads %q", path, info.Schema, Schema)
	}
	return info, nil
}

// AsNoSpace turns the error of a full file system or quota into an ErrNoSpace, and returns any other error unchanged.
// The name of the file that was being written is left out: it is temporary, and means nothing to the reader.
func AsNoSpace(err error) error {
	var full unix.Errno
	if errors.Is(err, ErrNoSpace) || !errors.As(err, &full) || full != unix.ENOSPC && full != unix.EDQUOT {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoSpace, full)
}
