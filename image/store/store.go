package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

var (
	// ErrNoRoot is returned for an ID of which there is no complete root.
	ErrNoRoot = errors.New("no such root")
	// ErrNoSpace is returned when the file system, or a quota, is full.
	ErrNoSpace = errors.New("not enough space")
)

const (
	objectsDir = "objects"
	rootsDir   = "roots"
	stagingDir = "staging"
	cfsName    = "root.cfs"
	infoName   = "image.json"
	// maxInfo bounds image.json, which has a few hundred bytes.
	maxInfo = 1 << 20
)

// validID is what a root may be called; the digest is of the image's manifest.
var validID = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)

// Store is a directory tree with objects and roots.
type Store struct{ dir string }

// Root is a complete root in the store.
type Root struct {
	ID   string
	Dir  string
	Info Info
}

// CFS returns the path of the root's composefs image.
func (r Root) CFS() string { return filepath.Join(r.Dir, cfsName) }

// Open opens the store at dir and makes its directories where they are missing.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open store: %w", err)
	}
	s := &Store{dir}
	for _, d := range []string{dir, s.ObjectsDir(), s.path(rootsDir), s.path(stagingDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("cannot open store: %w", Full(err))
		}
	}
	return s, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// ObjectsDir returns the directory that overlayfs takes as data-only layer.
func (s *Store) ObjectsDir() string { return s.path(objectsDir) }

// Root returns the root with that ID, or an ErrNoRoot. One that lost a part is none, and can be staged again.
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
		return Root{}, fmt.Errorf("cannot read root %s: %w", id, err)
	}
	r.Info = info
	return r, nil
}

// Roots returns all complete roots, in the order of their IDs.
func (s *Store) Roots() ([]Root, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var roots []Root
	for _, id := range ids {
		r, err := s.Root(id)
		if errors.Is(err, ErrNoRoot) {
			continue
		}
		if err != nil {
			return nil, err
		}
		roots = append(roots, r)
	}
	return roots, nil
}

// ids lists the directories in roots/, complete or not.
func (s *Store) ids() ([]string, error) {
	entries, err := os.ReadDir(s.path(rootsDir))
	if err != nil {
		return nil, fmt.Errorf("cannot list roots: %w", err)
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, nil
}

// readInfo reads image.json. Fields of a newer agent are passed over.
func readInfo(path string) (Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxInfo+1))
	if err != nil {
		return Info{}, err
	}
	if len(data) > maxInfo {
		return Info{}, fmt.Errorf("%s has more than %d bytes", path, maxInfo)
	}
	var info Info
	if err := json.Unmarshal(data, &info); err != nil {
		return Info{}, fmt.Errorf("%s: %w", path, err)
	}
	if info.Schema != Schema {
		return Info{}, fmt.Errorf("%s has schema %q, this agent reads %q", path, info.Schema, Schema)
	}
	return info, nil
}

// Full turns the errors of a full file system into ErrNoSpace. Which file was being written says nothing: its name is
// of this package's making, and gone when somebody reads it.
func Full(err error) error {
	var full unix.Errno
	if errors.Is(err, ErrNoSpace) || !errors.As(err, &full) || full != unix.ENOSPC && full != unix.EDQUOT {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoSpace, full)
}
