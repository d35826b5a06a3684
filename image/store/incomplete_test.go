package store

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A root that has lost any part counts as missing, and is complete again when it is staged. Other files in its
// directory stay.
func TestARootThatLostAPartIsStagedAgain(t *testing.T) {
	for _, lost := range [][]string{{cfsName}, {infoName}, {cfsName, infoName}} {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			s := open(t)
			r := stage(t, s, id(1), "a", "b")
			upper := filepath.Join(r.Dir, "etc", "upper")
			if err := os.MkdirAll(upper, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, name := range lost {
				if err := os.Remove(filepath.Join(r.Dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Root(id(1)); !errors.Is(err, ErrNoRoot) {
				t.Errorf("got %v, want %v", err, ErrNoRoot)
			}
			if roots, err := s.Roots(); err != nil || len(roots) != 0 {
				t.Errorf("listed: %+v, %v", roots, err)
			}
			again := stage(t, s, id(1), "a", "b")
			if again.Info.RootDigest != r.Info.RootDigest || again.Info.NewBytes != 0 {
				t.Errorf("staged again as %+v, was %+v", again.Info, r.Info)
			}
			if _, err := os.Stat(upper); err != nil {
				t.Error(err)
			}
			if report, err := s.GC([]string{id(1)}, nil); err != nil || report.Objects != 0 {
				t.Errorf("garbage after it: %+v, %v", report, err)
			}
		})
	}
}

// What is left of a root that is not kept is removed with its objects.
func TestGCRemovesAnIncompleteRootThatNobodyKeeps(t *testing.T) {
	s := open(t)
	stage(t, s, id(1), "a")
	r := stage(t, s, id(2), "b")
	if err := os.Remove(r.CFS()); err != nil {
		t.Fatal(err)
	}
	report, err := s.GC([]string{id(1)}, nil)
	if err != nil || !slices.Equal(report.Roots, []string{id(2)}) || report.Objects != 1 {
		t.Errorf("report %+v, %v", report, err)
	}
	if got := objectsIn(t, s); !slices.Equal(got, []string{"a"}) {
		t.Errorf("objects %q", got)
	}
	if _, err := os.Stat(r.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", r.Dir, err)
	}
}

// Only the contents of the finished tree become objects, not those that an upper layer hides.
func TestHiddenFilesAreNotPublished(t *testing.T) {
	s := open(t)
	stage(t, s, id(1), "known")
	large := strings.Repeat("x", smallFile+1)
	lower := archive(t, tar.Header{Name: "kept"}, "kept", tar.Header{Name: "replaced"}, "old",
		tar.Header{Name: "removed"}, large, tar.Header{Name: "both"}, "same")
	upper := archive(t, tar.Header{Name: "replaced"}, "new", tar.Header{Name: ".wh.removed"}, "",
		tar.Header{Name: ".wh.both"}, "", tar.Header{Name: "again"}, "same", tar.Header{Name: "shared"}, "known")
	r := stageLayers(t, s, id(2), lower, upper)
	if got := objectsIn(t, s); !slices.Equal(got, []string{"kept", "known", "new", "same"}) {
		t.Errorf("objects %.20q", got)
	}
	if want := int64(len("kept" + "new" + "same")); r.Info.NewBytes != want {
		t.Errorf("%d new bytes, want %d", r.Info.NewBytes, want)
	}
	if left, err := os.ReadDir(s.path(stagingDir)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if report, err := s.GC([]string{id(1), id(2)}, nil); err != nil || report.Objects != 0 {
		t.Errorf("garbage after it: %+v, %v", report, err)
	}
}

// The error about a full disk does not contain temporary names.
func TestAsNoSpaceSaysNoPaths(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT} {
		inner := &fs.PathError{Op: "write", Path: "/var/lib/updatectl/staging/root-1/objects/ab", Err: errno}
		err := AsNoSpace(fmt.Errorf("cannot write object: %w", AsNoSpace(inner)))
		if want := "cannot write object: not enough space: " + errno.Error(); err.Error() != want ||
			!errors.Is(err, ErrNoSpace) || !errors.Is(err, errno) {
			t.Errorf("got %q, want %q", err, want)
		}
	}
	for _, other := range []error{nil, unix.EIO, &fs.PathError{Op: "open", Path: "x", Err: unix.EACCES}} {
		if got := AsNoSpace(other); got != other {
			t.Errorf("%v became %v", other, got)
		}
	}
}

// Renew can be killed, and then leaves a part of a file beside a root; so can a check of objects.
func TestSweepRemovesHalfAFile(t *testing.T) {
	s := open(t)
	r := stage(t, s, id(1), "a")
	halves := []string{filepath.Join(r.Dir, ".image.json.1234"), s.path(".checked.1234")}
	for _, half := range halves {
		if err := os.WriteFile(half, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	for _, half := range halves {
		if _, err := os.Lstat(half); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", half, err)
		}
	}
	if _, err := s.Root(id(1)); err != nil {
		t.Error(err)
	}
}

// TestRootStaysWhileItIsRestored: a root that is staged again stays a way back if the agent is killed before the new
// image.json has its name.
func TestRootStaysWhileItIsRestored(t *testing.T) {
	s := open(t)
	r := stage(t, s, id(1), "a")
	g, err := s.Begin(id(1))
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(r.CFS())
	if err == nil {
		err = os.WriteFile(g.path(rootsDir, cfsName), image, 0o400)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := g.publishRoot(); !errors.Is(err, fs.ErrNotExist) { // there is no new image.json
		t.Fatalf("got %v, want %v", err, fs.ErrNotExist)
	}
	if r, err = s.Root(id(1)); err != nil || s.Intact(r) != nil {
		t.Errorf("the root is gone: %v, %v", err, s.Intact(r))
	}
}

// TestDirectoriesInPlaceOfFilesOfARoot: they are replaced when the root is staged again.
func TestDirectoriesInPlaceOfFilesOfARoot(t *testing.T) {
	s := open(t)
	r := stage(t, s, id(1), "a")
	for _, name := range []string{cfsName, infoName} {
		if err := os.Remove(filepath.Join(r.Dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(r.Dir, name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Intact(stage(t, s, id(1), "a")); err != nil {
		t.Error(err)
	}
}
