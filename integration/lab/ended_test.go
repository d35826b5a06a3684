package lab

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const dying = "[    9.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n" +
	"[    9.2] Kernel Offset: disabled\r\n"

// TestPanics: a kernel that panics and reboots ends its machine itself; one that stays has to be ended, once.
func TestPanics(t *testing.T) {
	const reason = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"
	for _, test := range []struct {
		name, console, last string
		ended               int
	}{
		{"none", "[    9.1] systemd[1]: Reached target\r\n", "", 0},
		{"reboots", dying + "[    9.3] Rebooting in 10 seconds..", reason, 0},
		{"stays", dying + "[    9.3] ---[ end " + panicked + ": Attempted to kill init! ]---\r\n", reason, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "console.log")
			log, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			ended := 0
			p := &panics{log: log, ended: func() { ended++ }}
			for rest := test.console; rest != ""; { // in pieces, as a console comes
				n := min(7, len(rest))
				if _, err := p.Write([]byte(rest[:n])); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if ended != test.ended || p.last() != test.last || p.stayed() != (test.ended > 0) {
				t.Errorf("ended %d times with %q, stayed %t", ended, p.last(), p.stayed())
			}
			if text, err := os.ReadFile(file); err != nil || string(text) != test.console {
				t.Errorf("the log has %q (%v)", text, err)
			}
		})
	}
}

func TestAlive(t *testing.T) {
	h := &Host{ended: make(chan struct{})}
	if err := h.Alive(); err != nil {
		t.Error(err)
	}
	close(h.ended)
	if err := h.Alive(); !errors.Is(err, errHostGone) {
		t.Errorf("the error is %v", err)
	}
	h.panics = &panics{said: "Kernel panic - not syncing: no init"}
	if err := h.Alive(); !errors.Is(err, errHostGone) || !strings.Contains(err.Error(), "no init") {
		t.Errorf("the error is %v", err)
	}
}
