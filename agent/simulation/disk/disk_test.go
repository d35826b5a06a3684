package disk

import (
	"slices"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// write is the change that writes a file.
func write(name string) func(Files) {
	return func(f Files) { f[name] = File{Content: []byte(name)} }
}

// TestCut: a power cut keeps what is synced or old, and loses the end of what is not, but nothing from the middle.
func TestCut(t *testing.T) {
	for luck, want := range map[int][]string{
		0: {"/old", "/synced"},
		1: {"/first", "/old", "/synced"},
		2: {"/first", "/old", "/second", "/synced"},
	} {
		d := New(Files{})
		d.Change(start, write("/synced"))
		d.Sync()
		d.Change(start, write("/old"))
		recent := start.Add(commitInterval)
		d.Change(recent, write("/first"))
		d.Change(recent, write("/second"))
		if len(d.Now) != 4 {
			t.Fatalf("before the cut, there are %v", d.Now)
		}
		lost := d.Cut(start.Add(commitInterval+1), func(n int) int {
			if n != 3 {
				t.Errorf("luck has %d choices, want 3", n)
			}
			return luck
		})
		if got := d.Now.Glob("/*"); !slices.Equal(got, want) || lost != 2-luck {
			t.Errorf("%d survive: %v, %d lost; want %v", luck, got, lost, want)
		}
		d.Change(start, func(f Files) { f.Remove("/synced") })
		if d.Cut(start, func(int) int { return 0 }); !d.Now.Exists("/synced") {
			t.Error("after a cut, what is removed is not there after another one")
		}
	}
}

// TestFill: a full disk has the room that somebody gave up, for a moment.
func TestFill(t *testing.T) {
	d := New(Files{})
	small, large := File{Size: 1}, File{Size: 5000} // one block, two blocks
	if !d.Take(start, File{}, large) {
		t.Error("a disk that is not full has no room")
	}
	d.Fill(true)
	if d.Take(start, File{}, small) || d.Take(start, small, small) {
		t.Error("a full disk has room") // what replaces a file is written beside it first
	}
	d.Give(start, small.Room())
	if d.Take(start, File{}, large) || !d.Take(start, File{}, small) || d.Take(start, File{}, small) {
		t.Error("not the room that was given back is free")
	}
	d.Give(start, small.Room())
	d.Replaced(small)
	if !d.Take(start.Add(hogTime), File{}, large) {
		t.Error("the room of a file that was replaced is not free")
	}
	d.Give(start, large.Room())
	if d.Take(start.Add(hogTime+1), File{}, small) {
		t.Error("others leave room on a full disk")
	}
	d.Fill(false)
	if !d.Take(start, File{}, large) {
		t.Error("the disk stays full")
	}
}

// TestHang: whoever waits for a disk that hangs goes on when it answers.
func TestHang(t *testing.T) {
	d := New(Files{})
	d.Answer() // it does
	if d.Hung() != nil {
		t.Fatal("a new disk hangs")
	}
	d.Hang(true)
	waits := d.Hung()
	select {
	case <-waits:
		t.Fatal("the disk answers")
	default:
	}
	if d.Answer(); d.Hung() != nil {
		t.Error("the disk hangs")
	}
	<-waits
}

// TestMove: a tree that gets the name of another one replaces it as a whole.
func TestMove(t *testing.T) {
	f := Files{}
	f.MakeDir("/a/b")
	f.MakeDir("/c/old")
	f.MakeDir("/ab")
	f.Move("/a", "/c")
	if got, want := f.Below("/c"), []string{"/c", "/c/b"}; !slices.Equal(got, want) || f.Exists("/a") || !f.Exists("/ab") {
		t.Errorf("there is %v, want %v, of %v", got, want, f)
	}
}
