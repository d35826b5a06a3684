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
)

// notesFile has what became of live patches since the kernel was booted. /run is gone when another boots.
const notesFile = switcher.RunDir + "/livepatch.json"

// notes is what notesFile has, by the digests of the live patches' manifests.
type notes struct {
	BootID string `json:"boot_id"`
	// Stalled are those whose last transition stalled.
	Stalled []digest.Digest `json:"stalled,omitempty"`
	// Late are those that were replaced, or that came on top of what is listed after them. The kernel tells of a loaded
	// live patch only since Linux 6.11 that it replaces others, and of one that is not loaded never.
	Late []digest.Digest `json:"late,omitempty"`
}

// readNotes reads the notes of this boot of the kernel. What cannot be read costs a transition or two, and nothing else.
func (a *Agent) readNotes(f switcher.Facts) notes {
	var n notes
	text, err := os.ReadFile(a.path(notesFile))
	if err != nil || json.Unmarshal(text, &n) != nil || n.BootID != f.BootID {
		return notes{BootID: f.BootID}
	}
	return n
}

// note changes the notes and writes them.
func (a *Agent) note(f switcher.Facts, change func(*notes)) {
	n := a.readNotes(f)
	change(&n)
	text, err := json.Marshal(n)
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(a.path(notesFile)), 0o755), writeAtomically(a.path(notesFile), text, 0o600))
	}
	if err != nil {
		a.Log.Warn("cannot note what became of a live patch", zap.Error(err))
	}
}

// set puts a digest into a list of notes, or takes it out.
func set(list *[]digest.Digest, id digest.Digest, in bool) {
	*list = slices.DeleteFunc(*list, func(d digest.Digest) bool { return d == id })
	if in {
		*list = append(*list, id)
	}
}

// withNotes marks what may not be loaded before something that is listed after it.
func (a *Agent) withNotes(f switcher.Facts, list []known) []known {
	late := a.readNotes(f).Late
	for i, k := range list {
		list[i].late = slices.Contains(late, k.Descriptor.Digest)
	}
	return list
}
