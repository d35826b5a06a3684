package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onlyFiles fails unless dir has exactly these files, and so no temporary one.
func onlyFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the directory has %q, want %q", got, want)
	}
}

// hasContent fails unless a file has this content and mode.
func hasContent(t *testing.T, file, want string, mode fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil || string(got) != want {
		t.Errorf("%s has %.40q (%v), want %.40q", file, got, err, want)
	}
	st, err := os.Lstat(file)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode() != mode {
		t.Errorf("%s has mode %v, want %v", file, st.Mode(), mode)
	}
}

func TestWriteFile(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	dir := t.TempDir()
	file := filepath.Join(dir, "state.json")
	for _, c := range []struct {
		content string
		mode    fs.FileMode
	}{{"first", 0o600}, {"the second is longer", 0o644}, {"", 0o444}, {"also over a read-only one", 0o666}} {
		if err := WriteFile(file, []byte(c.content), c.mode); err != nil {
			t.Fatal(err)
		}
		hasContent(t, file, c.content, c.mode)
		onlyFiles(t, dir, "state.json")
	}
}

// A relative name without a directory means the working directory.
func TestWriteFileInTheWorkingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := WriteFile("state.json", []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	hasContent(t, "state.json", "content", 0o600)
	onlyFiles(t, ".", "state.json")
}

// The old file is replaced and never written to: a process that has it open still reads the old content.
func TestWriteFileReplaces(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "state.json"), filepath.Join(dir, "other name")
	if err := WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(file, link); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(file, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	hasContent(t, file, "new", 0o644)
	hasContent(t, link, "old", 0o600)
}

// A reader of the file while it is replaced sees the old content or the new, complete.
func TestWriteFileIsAtomic(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	contents := [][]byte{bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 1<<17)}
	if err := WriteFile(file, contents[0], 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		var err error
		for n := 1; n <= 200 && err == nil; n++ {
			err = WriteFile(file, contents[n%2], 0o600)
		}
		written <- err
	}()
	for {
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Fatalf("read %d bytes, which are neither the old content nor the new", len(got))
		}
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

func TestWriteFileLeavesNothingWhenItFails(t *testing.T) {
	t.Run("the name is taken by a directory", func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "state.json")
		if err := os.Mkdir(file, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(file, []byte("content"), 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("got %v, want %v", err, fs.ErrExist)
		}
		onlyFiles(t, dir, "state.json")
	})
	t.Run("the disk is full", func(t *testing.T) {
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatalf("mount -t tmpfs: %v", err)
		}
		defer unix.Unmount(dir, 0)
		file := filepath.Join(dir, "state.json")
		if err := WriteFile(file, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(file, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("got %v, want %v", err, unix.ENOSPC)
		}
		hasContent(t, file, "old", 0o600)
		onlyFiles(t, dir, "state.json")
	})
	t.Run("there is no directory", func(t *testing.T) {
		err := WriteFile(filepath.Join(t.TempDir(), "missing", "state.json"), nil, 0o600)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want %v", err, fs.ErrNotExist)
		}
	})
}

// Callers find what a crash left by this pattern.
func TestNameOfTheTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "state.json")
	if err := os.Mkdir(file, 0o700); err != nil { // makes the rename fail, whose error has both names
		t.Fatal(err)
	}
	var link *os.LinkError
	if err := WriteFile(file, nil, 0o600); !errors.As(err, &link) {
		t.Fatalf("got %v, want the error of a rename", err)
	}
	ok, err := filepath.Match(".state.json.*", filepath.Base(link.Old))
	if err != nil || !ok || filepath.Dir(link.Old) != dir {
		t.Errorf("the temporary file is %s", link.Old)
	}
}

func TestSync(t *testing.T) {
	for name, sync := range map[string]func(string) error{"SyncFS": SyncFS, "SyncDir": SyncDir} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := sync(dir); err != nil {
				t.Error(err)
			}
			if err := sync(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v, want %v", err, fs.ErrNotExist)
			}
		})
	}
}

func TestSyncIsRepeatedAfterASignal(t *testing.T) {
	answers := []error{unix.EINTR, unix.EINTR, unix.EIO}
	calls := 0
	err := syncAt(t.TempDir(), func(int) error {
		calls++
		return answers[calls-1]
	})
	if !errors.Is(err, unix.EIO) || calls != len(answers) {
		t.Errorf("got %v after %d calls, want %v after %d", err, calls, unix.EIO, len(answers))
	}
}
