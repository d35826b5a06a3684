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

// liveNotesFile says which live patches stalled since the kernel booted. A full reboot clears /run.
const (
	liveNotesFile = switcher.RunDir + "/livepatch.json"
	maxNotes      = 1 << 20
)

// Notes is the content of liveNotesFile.
type Notes struct {
	BootID string `json:"boot_id"`
	// Stalled lists the live patches that stalled when they were last loaded, by the digests of their manifests.
	Stalled []digest.Digest `json:"stalled,omitempty"`
}

// ReadNotes returns the notes since the kernel booted. Notes that cannot be read are empty: at worst, a live patch
// stalls once more.
func (lp *Patches) ReadNotes(f facts.Facts) Notes {
	var n Notes
	text, err := lp.Machine.Disk.ReadFile(lp.Path(liveNotesFile), maxNotes)
	if err != nil || json.Unmarshal(text, &n) != nil || n.BootID != f.BootID {
		return Notes{BootID: f.BootID}
	}
	return n
}

// noteStalled notes whether a live patch stalled when it was last loaded.
func (lp *Patches) noteStalled(f facts.Facts, id digest.Digest, stalled bool) {
	n := lp.ReadNotes(f)
	n.Stalled = slices.DeleteFunc(n.Stalled, func(d digest.Digest) bool { return d == id })
	if stalled {
		n.Stalled = append(n.Stalled, id)
	}
	lp.WriteNotes(n)
}

// WriteNotes writes the notes. An error is only logged: the update goes on without them.
func (lp *Patches) WriteNotes(n Notes) {
	text, err := json.Marshal(n)
	if err == nil {
		file, disk := lp.Path(liveNotesFile), lp.Machine.Disk
		err = errors.Join(disk.MkdirAll(filepath.Dir(file), 0o755), disk.WriteFile(file, text, 0o600))
	}
	if err != nil {
		lp.Log.Warn("cannot note whether a live patch stalled", zap.Error(err))
	}
}
