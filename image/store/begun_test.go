package store

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/updatectl/updatectl/image/fsverity"
)

// TestBegun: a killed run leaves what the next one of the same root takes over, until it is a week old or the root is
// complete.
func TestBegun(t *testing.T) {
	s := open(t)
	content := []byte("content")
	d := fsverity.Sum(content)
	begin := func() *Staging {
		t.Helper()
		g, err := s.Begin(id(1))
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	left := func() int {
		t.Helper()
		if err := s.Sweep(); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(s.path(stagingDir))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	g := begin()
	if _, err := g.Put(bytes.NewReader(content), int64(len(content))); err != nil {
		t.Fatal(err)
	}
	if left() != 1 {
		t.Error("what a killed run has left is gone")
	}
	g = begin()
	if !g.Has(d, int64(len(content))) || g.NewBytes() != int64(len(content)) {
		t.Errorf("the object is not taken over; %d new bytes", g.NewBytes())
	}
	if g.Has(fsverity.Sum(nil), 0) {
		t.Error("an object that never was there is taken over")
	}
	for _, away := range []time.Duration{-8, 8} { // also of a clock that was wrong
		g = begin()
		at := time.Now().Add(away * 24 * time.Hour)
		if err := os.Chtimes(g.dir, at, at); err != nil {
			t.Fatal(err)
		}
		if left() != 0 {
			t.Errorf("it is %d days old and still there", -away)
		}
	}
	begin()
	if err := os.MkdirAll(s.path(rootsDir, id(1)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(rootsDir, id(1), infoName), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if left() != 0 {
		t.Error("what is left of a complete root stays")
	}
}
