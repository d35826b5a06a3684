package agent

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

// liveNotesFile notes what became of live patches since the kernel was booted. A full reboot clears /run.
const liveNotesFile = switcher.RunDir + "/livepatch.json"

// liveNotes is the content of liveNotesFile.
type liveNotes struct {
	BootID string `json:"boot_id"`
	// Stalled are the digests of the manifests of those whose last transition stalled.
	Stalled []digest.Digest `json:"stalled,omitempty"`
}

// readLiveNotes reads the notes since the last full reboot. Notes that cannot be read cost a transition or two,
// nothing else.
func (a *Agent) readLiveNotes(f facts.Facts) liveNotes {
	var n liveNotes
	text, err := os.ReadFile(a.path(liveNotesFile))
	if err != nil || json.Unmarshal(text, &n) != nil || n.BootID != f.BootID {
		return liveNotes{BootID: f.BootID}
	}
	return n
}

// noteStalled notes whether the last transition of a live patch stalled.
func (a *Agent) noteStalled(f facts.Facts, id digest.Digest, stalled bool) {
	n := a.readLiveNotes(f)
	n.Stalled = slices.DeleteFunc(n.Stalled, func(d digest.Digest) bool { return d == id })
	if stalled {
		n.Stalled = append(n.Stalled, id)
	}
	a.writeLiveNotes(n)
}

// writeLiveNotes writes the notes. A failure is logged: the update goes on without them.
func (a *Agent) writeLiveNotes(n liveNotes) {
	text, err := json.Marshal(n)
	if err == nil {
		dir := filepath.Dir(a.path(liveNotesFile))
		err = errors.Join(os.MkdirAll(dir, 0o755), writeAtomically(a.path(liveNotesFile), text, 0o600))
	}
	if err != nil {
		a.Log.Warn("cannot note what became of a live patch", zap.Error(err))
	}
}
