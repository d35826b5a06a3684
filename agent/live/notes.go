package live

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

// liveNotesFile notes what became of live patches since the kernel was booted. A full reboot clears /run.
const (
	liveNotesFile = switcher.RunDir + "/livepatch.json"
	maxNotes      = 1 << 20
)

// Notes is the content of liveNotesFile.
type Notes struct {
	BootID string `json:"boot_id"`
	// Stalled are the digests of the manifests of those whose last transition stalled.
	Stalled []digest.Digest `json:"stalled,omitempty"`
}

// ReadNotes reads the notes since the last full reboot. Notes that cannot be read cost a transition or two,
// nothing else.
func (lp *Patches) ReadNotes(f facts.Facts) Notes {
	var n Notes
	text, err := lp.Machine.Disk.ReadFile(lp.Path(liveNotesFile), maxNotes)
	if err != nil || json.Unmarshal(text, &n) != nil || n.BootID != f.BootID {
		return Notes{BootID: f.BootID}
	}
	return n
}

// noteStalled notes whether the last transition of a live patch stalled.
func (lp *Patches) noteStalled(f facts.Facts, id digest.Digest, stalled bool) {
	n := lp.ReadNotes(f)
	n.Stalled = slices.DeleteFunc(n.Stalled, func(d digest.Digest) bool { return d == id })
	if stalled {
		n.Stalled = append(n.Stalled, id)
	}
	lp.WriteNotes(n)
}

// WriteNotes writes the notes. A failure is logged: the update goes on without them.
func (lp *Patches) WriteNotes(n Notes) {
	text, err := json.Marshal(n)
	if err == nil {
		file, disk := lp.Path(liveNotesFile), lp.Machine.Disk
		err = errors.Join(disk.MkdirAll(filepath.Dir(file), 0o755), disk.WriteFile(file, text, 0o600))
	}
	if err != nil {
		lp.Log.Warn("cannot note what became of a live patch", zap.Error(err))
	}
}
