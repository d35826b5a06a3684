package durable

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReadRegular: what is no regular file is refused at once, also by the disk that the agent reads its files from.
func TestReadRegular(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(file("file"), []byte("content"), 0o600),
		os.Symlink("file", file("link")),
		os.Mkdir(file("directory"), 0o700),
		unix.Mkfifo(file("fifo"), 0o600),
		os.Symlink("fifo", file("link to a fifo")),
		os.Symlink("/dev/zero", file("device")),
		os.WriteFile(file("empty"), nil, 0o600),
		os.Symlink("/dev/null", file("switched off")),
	); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", file("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	contents := map[string]string{"file": "content", "link": "content"}
	reads := map[string]func(string, int64) ([]byte, error){"ReadRegular": ReadRegular, "OS.ReadFile": OS{}.ReadFile}
	for name, want := range map[string]error{
		"file": nil, "link": nil, "empty": nil, "switched off": nil,
		"missing": fs.ErrNotExist, "directory": ErrNotRegular, "fifo": ErrNotRegular,
		"link to a fifo": ErrNotRegular, "device": ErrNotRegular, "socket": ErrNotRegular,
	} {
		for reader, read := range reads {
			done := make(chan error, 1)
			go func() {
				text, err := read(file(name), 7)
				if err == nil && string(text) != contents[name] {
					t.Errorf("%s of %s is %q", reader, name, text)
				}
				done <- err
			}()
			select {
			case err := <-done:
				if !errors.Is(err, want) {
					t.Errorf("%s of %s: %v, want %v", reader, name, err, want)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s of %s hangs", reader, name)
			}
		}
	}
	if _, err := ReadRegular(file("file"), 6); err == nil {
		t.Error("a file that is too large was read")
	}
}
