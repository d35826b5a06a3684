package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/updatectl/updatectl/cmd/cmdtest"
)

// TestInterrupted: Ctrl-C while a registry does not answer ends with one sentence, whatever was being done.
func TestInterrupted(t *testing.T) {
	for _, c := range []struct {
		command string
		signal  os.Signal
	}{{"check", os.Interrupt}, {"stage", os.Interrupt}, {"stage", syscall.SIGTERM}, {"stage", syscall.SIGHUP}} {
		t.Run(c.command+" "+c.signal.String(), func(t *testing.T) {
			address, asked := cmdtest.SilentRegistry(t)
			p := &publisher{dir: t.TempDir()}
			if err := errors.Join(p.makeKey(), p.writePublicKeys(), p.configure("host", "release.pub", address)); err != nil {
				t.Fatal(err)
			}
			got := cmdtest.Interrupt(t, c.signal, asked, exitInterrupted,
				"updatectl", "--root", filepath.Join(p.dir, "host"), c.command, "--from", address+"/os:v1")
			if want := map[string]string{
				"check": "updatectl: interrupted\nhint: run the same command again\n",
				"stage": "updatectl: interrupted; what has arrived of an image is kept for a week\n" +
					"hint: the same command goes on with it; `updatectl status` shows what is staged, " +
					"and whether a switch is under way\n",
			}[c.command]; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
