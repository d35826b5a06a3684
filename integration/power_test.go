//go:build lab

package integration

import (
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// losesWhatWasNotFlushed shows that a host of the lab loses at a power cut what a real one would: a file that was
// synced is there, one that was only written is not.
func losesWhatWasNotFlushed(t *testing.T, kind lab.Kind) {
	beside(t, kind)
	ctx := t.Context()
	name := map[lab.Kind]string{lab.Nspawn: "plug", lab.QEMU: "vmplug"}[kind]
	h := lab.Start(t, lab.Options{Name: name, Kind: kind, Logged: true})
	if kind == lab.QEMU { // it is so slow that its kernel would write back in time
		h.Must(t, "sh", "-ec", "echo 0 > /proc/sys/vm/dirty_writeback_centisecs")
	}
	h.Must(t, "sh", "-ec", "echo kept > /var/lib/kept; sync /var/lib/kept; echo gone > /var/lib/gone; "+
		"dd if=/dev/urandom of=/var/lib/large bs=1M count=8 status=none")
	before, err := h.Stamp(ctx)
	if err != nil {
		t.Fatal(err)
	}
	after, err := h.CutPower(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if after.SoftReboots != 0 || kind == lab.QEMU && after.BootID == before.BootID {
		t.Errorf("%+v became %+v: that was no power cut", before, after)
	}
	if got := h.Must(t, "cat", "/var/lib/kept"); got != "kept" {
		t.Errorf("what was synced reads %q", got)
	}
	if r := h.Sh(ctx, "cat /var/lib/gone /var/lib/large | wc -c"); r.Stdout != "0\n" {
		t.Errorf("what was not synced is there: %s", r)
	}
	h.Must(t, "sh", "-ec", "echo again > /var/lib/again; sync") // the disk can still be written
	if _, err := h.CutPower(ctx); err != nil {
		t.Fatal(err)
	}
	if got := h.Must(t, "cat", "/var/lib/kept", "/var/lib/again"); got != "kept\nagain" {
		t.Errorf("after another cut: %q", got)
	}
}

func TestPowerCut(t *testing.T) { losesWhatWasNotFlushed(t, lab.Nspawn) }
