package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// pastFile has what the roots that ran on this kernel set in it. A full reboot clears /run, and this file with it.
// maxPast bounds it, in bytes.
const (
	pastFile = switcher.RunDir + "/past.json"
	maxPast  = 16 << 20
)

// loadedPolicy returns the SELinux policy in the kernel, which a soft reboot does not replace; own is that of the
// running root.
func (h *Host) loadedPolicy(own rootfs.Policy) rootfs.Policy {
	past, err := h.ReadPast()
	if err != nil {
		h.Log.Warn("cannot find out which SELinux policy is loaded; assuming that of the running root", zap.Error(err))
	}
	return past.LoadedPolicy(own)
}

// NotePast adds what the running root sets in the kernel to the notes about the roots before it. A failure is only
// logged: whoever reads the notes can do without.
func (h *Host) NotePast(root string) {
	now, err := h.Machine.Kernel.Present()
	if err == nil {
		var past facts.Past
		if past, err = h.ReadPast(); err == nil {
			past.Note(root, now)
			err = h.writePast(past)
		}
	}
	if err != nil {
		h.Log.Warn("cannot record what this root sets in the kernel", zap.Error(err))
	}
}

// ReadPast returns what earlier roots set in the running kernel, nothing if there are no notes yet.
func (h *Host) ReadPast() (facts.Past, error) {
	var p facts.Past
	text, err := h.Machine.Disk.ReadFile(h.Path(pastFile), maxPast)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return p, fmt.Errorf("cannot read what earlier roots set in the kernel: %w", err)
	}
	return p, nil
}

// writePast replaces the notes about earlier roots.
func (h *Host) writePast(p facts.Past) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return h.Machine.Disk.WriteFile(h.Path(pastFile), text, 0o600)
}
