// Package stale answers which files in /run mean "since this boot", although a soft reboot keeps them. It promises that
// nothing is removed from a directory that users can exchange.
package stale

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/configs"
)

// staleFile is the host's own list of stale files; the shipped one is [configs.Stale].
const staleFile = "/etc/updatectl/stale.conf"

// maxStale bounds that file, in bytes.
const maxStale = 64 << 10

// stalePatterns returns the patterns of a list of stale files: absolute paths below /run, and of names in /dev/shm. The
// error names the lines that are none. Nothing below a directory that users can exchange may be listed: they could have
// root remove other files.
func stalePatterns(list string) (patterns []string, err error) {
	for line := range strings.Lines(list) {
		pattern, _, _ := strings.Cut(line, "#")
		if pattern = strings.TrimSpace(pattern); pattern == "" {
			continue
		}
		_, bad := filepath.Match(pattern, "")
		below, inRun := strings.CutPrefix(pattern, "/run/")
		dir, _, _ := strings.Cut(below, "/")
		ofUsers := dir == "user" || dir == "lock" || strings.ContainsAny(dir, `*?[\`)
		name, inShm := strings.CutPrefix(pattern, "/dev/shm/")
		isName := inShm && !strings.Contains(name, "/")
		if bad != nil || filepath.Clean(pattern) != pattern || (!inRun || ofUsers) && !isName {
			err = errors.Join(err, fmt.Errorf("%q is not a path below a directory of the system in /run, "+
				"nor a name in /dev/shm", pattern))
			continue
		}
		patterns = append(patterns, pattern)
	}
	return patterns, err
}

// Remove removes the files that mean "since this boot", and the mount points whose mounts a soft reboot ends.
// Services must have stopped. What fails is logged: no switch depends on it.
func Remove(h *host.Host) {
	patterns, err := stalePatterns(configs.Stale())
	text, rerr := h.Machine.Disk.ReadFile(h.Path(staleFile), maxStale)
	if rerr == nil {
		var more []string
		more, rerr = stalePatterns(string(text))
		patterns = append(patterns, more...)
	}
	if !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	for _, pattern := range patterns {
		names, gerr := h.Machine.Disk.Glob(h.Path(pattern))
		err = errors.Join(err, gerr)
		for _, name := range names {
			err = errors.Join(err, h.Machine.Mounts.Detach(name), h.Machine.Disk.Remove(name))
		}
	}
	if err != nil {
		h.Log.Warn("cannot remove every file that is stale after a soft reboot", zap.Error(err))
	}
}
