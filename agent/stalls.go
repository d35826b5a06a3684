package agent

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/livepatch"
)

// stallFile names the live patches whose transition stalled since the kernel was booted. /run is gone when another boots.
const stallFile = switcher.RunDir + "/stalled.json"

// stalls is what stallFile has, by the digests of their manifests.
type stalls struct {
	BootID      string          `json:"boot_id"`
	LivePatches []digest.Digest `json:"live_patches"`
}

// readStalls reads what stalled in this boot of the kernel. What cannot be read costs a deadline, and nothing else.
func (a *Agent) readStalls(f switcher.Facts) stalls {
	var s stalls
	text, err := os.ReadFile(a.path(stallFile))
	if err != nil || json.Unmarshal(text, &s) != nil || s.BootID != f.BootID {
		return stalls{BootID: f.BootID}
	}
	return s
}

// noteStall writes down whether the last try of a live patch stalled.
func (a *Agent) noteStall(f switcher.Facts, s patches.Stored, tried error) {
	noted, id := a.readStalls(f), s.Descriptor.Digest
	stalled := errors.Is(tried, livepatch.ErrStalled)
	if slices.Contains(noted.LivePatches, id) == stalled {
		return
	}
	noted.LivePatches = slices.DeleteFunc(noted.LivePatches, func(d digest.Digest) bool { return d == id })
	if stalled {
		noted.LivePatches = append(noted.LivePatches, id)
	}
	text, err := json.Marshal(noted)
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(a.path(stallFile)), 0o755), writeAtomically(a.path(stallFile), text, 0o600))
	}
	if err != nil {
		a.Log.Warn("cannot note which live patch stalled", zap.Error(err))
	}
}
