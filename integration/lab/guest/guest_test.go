package guest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// appear makes a port, which is a terminal without any processing, and returns the host's end.
func appear(t *testing.T, path string) *os.File {
	t.Helper()
	host, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(host.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetTermios(fd, unix.TCSETS, &unix.Termios{Cflag: unix.CS8 | unix.CREAD})
	}
	if err == nil {
		err = os.Symlink(fmt.Sprintf("/dev/pts/%d", n), path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// TestPortsThatAppearLater: a guest that starts before all of its ports are there serves all of them.
func TestPortsThatAppearLater(t *testing.T) {
	dir := t.TempDir()
	first := appear(t, filepath.Join(dir, "port1"))
	go Serve(filepath.Join(dir, "port*"))
	names := map[string]bool{}
	answers := func(host *os.File) {
		t.Helper()
		guests := make(chan string, 1)
		go func() {
			for lines := bufio.NewScanner(host); lines.Scan(); {
				var m Message
				if json.Unmarshal(lines.Bytes(), &m) == nil && m.Guest != "" {
					guests <- m.Guest
					return
				}
			}
		}()
		select {
		case name := <-guests:
			names[name] = true
		case <-time.After(10 * time.Second):
			t.Fatal("nobody serves the port")
		}
	}
	answers(first)
	answers(appear(t, filepath.Join(dir, "port2")))
	if len(names) != 1 {
		t.Errorf("the ports are of the guests %v", names)
	}
}
