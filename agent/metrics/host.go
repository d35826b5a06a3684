package metrics

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/owned"
	"github.com/updatectl/updatectl/switcher/level"
)

// File is the name of the file in the directory of [metrics] textfile.
const File = "updatectl.prom"

// Of returns what is measured of a host. It changes nothing.
func Of(ctx context.Context, a *agent.Agent) (Host, error) {
	s, err := a.Status(ctx)
	if err != nil {
		return Host{}, err
	}
	h := fromStatus(s)
	h.Images = imagesOf(a, s)
	rec, err := a.Records.Read()
	if err != nil {
		return Host{}, err
	}
	// Not all switches are measured: then the last one that was is another one.
	list, err := outage.Read(a.Machine.Disk, a.Path(record.StateDir+"/"+outage.File))
	if err != nil {
		return Host{}, err
	}
	if n := len(list); n > 0 && rec.Switch != nil && list[n-1].At.Equal(rec.Switch.At) {
		h.LastOutage = list[n-1].Outage()
	}
	return h, nil
}

// imagesOf returns how large the images are that are booted and staged. The host root is none, and one that cannot be
// read is left out.
func imagesOf(a *agent.Agent, s agent.Status) map[string]Image {
	images := map[string]Image{}
	add := func(state, id string) {
		if root, err := a.Machine.Trees.Root(id); err == nil {
			images[state] = Image{Bytes: root.Info.Size, New: root.Info.NewBytes}
		}
	}
	add("booted", s.Booted.Root)
	if s.Staged != nil {
		add("staged", s.Staged.Root)
	}
	return images
}

// fromStatus returns what the status says of a host.
func fromStatus(s agent.Status) Host {
	h := Host{
		Version: s.Booted.Version, Root: s.Booted.Root, Kernel: s.Kernel.Release, Phase: string(s.Phase),
		Staged: s.Staged != nil, Paused: s.Paused != nil, RebootBy: s.Kernel.RebootBy, BadRoots: len(s.Bad),
		SlotHeld: s.Slot != nil, SlotKept: s.Slot != nil && s.Slot.Failed != "", LivePatches: map[string]int{},
	}
	if s.Last != nil {
		h.LastEnded, h.LastSucceeded = s.Last.At, s.Last.Outcome == level.Switched
	}
	if s.Unattended != nil {
		h.Checked, h.Blocked = s.Unattended.Checked, s.Unattended.Reason
		if h.Staged && s.Unattended.Staged == s.Staged.Root {
			h.Level = string(s.Unattended.Level)
		}
	}
	for _, fix := range s.Fixes {
		if fix.State == live.FixOpen {
			h.FixesOpen++
		}
	}
	for _, p := range s.Kernel.LivePatches {
		h.LivePatches[string(p.State)]++
	}
	return h
}

// Write writes the metrics of a host into the directory of [metrics] textfile; without one, it does nothing. It is an
// [owned.ErrOthers] if others than root can write there.
func Write(ctx context.Context, a *agent.Agent) error {
	dir, err := open(a.Machine.Root, a.Config.Metrics.Textfile)
	if dir == nil || err != nil {
		return err
	}
	defer dir.Close()
	h, err := Of(ctx, a)
	if err != nil {
		return fmt.Errorf("cannot measure this host: %w", err)
	}
	text, err := Text(h)
	if err == nil {
		err = a.Machine.Disk.WriteFile(inside(dir)+File, text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot write the metrics into %s: %w", a.Config.Metrics.Textfile, err)
	}
	return nil
}

// inside returns the path of an open directory, with a slash. Nobody can make it lead elsewhere.
func inside(dir *os.File) string { return fmt.Sprintf("/proc/self/fd/%d/", dir.Fd()) }

// open returns a directory of a root, nil for "" and where there is none. In Debian, the directory above it belongs to
// the user of Prometheus, who can put a link in its place. So no link is followed, and the owner is that of the
// directory that was opened.
func open(root, path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	top, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	fd, err := unix.Openat2(int(top.Fd()), strings.TrimPrefix(filepath.Clean(path), "/"), &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("cannot write the metrics: %s has a link on the way; name the directory it leads to as "+
			"textfile in [metrics]", path)
	case err != nil:
		return nil, fmt.Errorf("cannot write the metrics into %s: %w", path, err)
	}
	dir := os.NewFile(uintptr(fd), path)
	if owned.WrittenByOthers(dir) {
		dir.Close()
		return nil, fmt.Errorf("cannot write the metrics: %w: %s; run: chown root:root %[2]s; chmod go-w %[2]s",
			owned.ErrOthers, path)
	}
	return dir, nil
}
