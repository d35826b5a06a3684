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

// pastFile has what the roots of the running kernel set in it. /run is gone when another kernel boots.
const (
	pastFile = switcher.RunDir + "/past.json"
	maxPast  = 16 << 20
)

// loadedPolicy is the SELinux policy in the kernel. A soft reboot does not load that of the new root.
func (h *Host) loadedPolicy(own rootfs.Policy) rootfs.Policy {
	past, err := h.ReadPast()
	if err != nil {
		h.Log.Warn("cannot tell which SELinux policy is loaded; that of the running root is taken for it", zap.Error(err))
	}
	return past.LoadedPolicy(own)
}

// NotePast adds what the running root sets in the kernel to what is known of the roots before it. What depends on it does
// without, so it holds nothing up.
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
		h.Log.Warn("cannot note what this root sets in the kernel", zap.Error(err))
	}
}

// ReadPast returns what earlier roots set in the running kernel; nothing when nobody has noted any.
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

func (h *Host) writePast(p facts.Past) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return h.Machine.Disk.WriteFile(h.Path(pastFile), text, 0o600)
}
