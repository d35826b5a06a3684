package durable

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAppendLine: a line that a crash cut short does not spoil the next one.
func TestAppendLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "history.jsonl")
	for _, line := range []string{"one", "two"} {
		if err := (OS{}).AppendLine(file, []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(file, int64(len("one\ntw"))); err != nil {
		t.Fatal(err)
	}
	if err := (OS{}).AppendLine(file, []byte("three")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "one\ntw\nthree\n" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

// TestTryLock: a second caller learns who holds the lock, and the lock ends with unlock.
func TestTryLock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "run", "lock")
	unlock, _, err := (OS{}).TryLock(file, "apply, process 1")
	if err != nil || unlock == nil {
		t.Fatal(err)
	}
	again, holder, err := (OS{}).TryLock(file, "rollback, process 2")
	if err != nil || again != nil || holder != "apply, process 1" {
		t.Errorf("%q, %v, locked twice: %v", holder, err, again != nil)
	}
	unlock()
	if again, _, err = (OS{}).TryLock(file, "gc"); err != nil || again == nil {
		t.Errorf("the lock outlives its holder: %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "gc\n" {
		t.Errorf("the note is %q, %v", text, err)
	}
}

// TestCreateNew: only the first call creates the file.
func TestCreateNew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "run", "started")
	for _, want := range []bool{true, false} {
		if got, err := (OS{}).CreateNew(file); err != nil || got != want {
			t.Errorf("created: %v, %v; want %v", got, err, want)
		}
	}
}

// TestExchange: a tree takes the place of another, or a name that was free.
func TestExchange(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"new/a", "old/b", "third/c"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"new": "old", "third": "nowhere"} {
		if err := (OS{}).Exchange(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
		if (OS{}).Exists(filepath.Join(dir, from)) {
			t.Errorf("%s is left", from)
		}
	}
	for _, name := range []string{"old/a", "nowhere/c"} {
		if !(OS{}).Exists(filepath.Join(dir, name)) {
			t.Errorf("%s is missing", name)
		}
	}
}

// TestExchangeThatCannotCleanUp: the new tree is in its place, so what is left of the old one is no error.
func TestExchangeThatCannotCleanUp(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"new/a", "old/busy"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("tmpfs", filepath.Join(dir, "old/busy"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Join(dir, "new/busy"), 0)
	if err := (OS{}).Exchange(filepath.Join(dir, "new"), filepath.Join(dir, "old")); err != nil {
		t.Error(err)
	}
	if !(OS{}).Exists(filepath.Join(dir, "old/a")) || !(OS{}).Exists(filepath.Join(dir, "new/busy")) {
		t.Error("the trees were not exchanged")
	}
}

// TestEndHolder: the process that holds a lock gets SIGTERM, and no other one.
func TestEndHolder(t *testing.T) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "lock"), filepath.Join(dir, "other")
	for _, f := range []string{file, other} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hold := func(f string) *exec.Cmd {
		t.Helper()
		c := exec.Command("flock", "--no-fork", f, "sleep", "60")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		for {
			unlock, _, err := (OS{}).TryLock(f, "")
			if err != nil {
				t.Fatal(err)
			}
			if unlock == nil {
				return c
			}
			unlock()
			time.Sleep(time.Millisecond)
		}
	}
	holder, bystander := hold(file), hold(other)
	if err := (OS{}).EndHolder(file); err != nil {
		t.Fatal(err)
	}
	if err := holder.Wait(); err == nil || err.Error() != "signal: terminated" {
		t.Errorf("the holder ends with %v", err)
	}
	if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the holder of another lock: %v", err)
	}
	if err := (OS{}).EndHolder(file); err != nil {
		t.Errorf("without a holder: %v", err)
	}
}
