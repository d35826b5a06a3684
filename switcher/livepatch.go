package switcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// LivePatch is a live patch that the kernel has loaded (/sys/kernel/livepatch, kernel's livepatch documentation).
type LivePatch struct {
	Name string `json:"name"`
	// Enabled: the patch is on, or becoming so. Transition: not every task has moved yet.
	Enabled    bool `json:"enabled"`
	Transition bool `json:"transition"`
	// Replace: a cumulative patch, which supersedes older ones. Known since Linux 6.11.
	Replace bool `json:"replace"`
}

// Effective tells whether the patch's fixes count: it is enabled and no task still runs the old code.
func (p LivePatch) Effective() bool { return p.Enabled && !p.Transition }

// LivePatches lists the live patches that the kernel has loaded. A kernel without live patching has none.
func (m Machine) LivePatches() ([]LivePatch, error) {
	dir := m.Path("/sys/kernel/livepatch")
	entries, err := os.ReadDir(dir)
	patches := []LivePatch{}
	if errors.Is(err, fs.ErrNotExist) {
		return patches, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the live patches: %w", err)
	}
	for _, e := range entries {
		flag := func(name string) bool {
			b, err := os.ReadFile(filepath.Join(dir, e.Name(), name))
			return err == nil && strings.TrimSpace(string(b)) == "1"
		}
		patches = append(patches, LivePatch{e.Name(), flag("enabled"), flag("transition"), flag("replace")})
	}
	return patches, nil
}
