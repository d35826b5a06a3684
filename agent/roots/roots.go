// Package roots answers what a staged root would become on this host: at which level it can be switched to, what is laid
// over its image, and which /etc it gets. It promises that nothing half done carries a final name, and that a root that
// ran keeps the /etc it was good with.
package roots

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Roots knows the staged roots of a host, and what each would become on it.
type Roots struct{ *host.Host }

var (
	// ErrFullReboot: the change needs a full reboot.
	ErrFullReboot = errors.New("a full reboot is needed")
	// ErrIncompatible: this image cannot run on this host.
	ErrIncompatible = errors.New("not compatible with this host")
	// ErrNoRoot: there is no such root to go to.
	ErrNoRoot = errors.New("no such root")
)

const (
	// HostMount is where the host root stays mounted while an image root runs.
	HostMount = record.StateDir + "/host"
	// ledgerFile names the owner of every uid and gid ever assigned here.
	ledgerFile = record.StateDir + "/ids.json"
)

// Open prepares the directories of the roots for a command that may write to them.
func (r *Roots) Open() error {
	if !r.Machine.Superuser {
		return fmt.Errorf("cannot work on the host's roots: %w", host.ErrPermission)
	}
	return r.Machine.Trees.Prepare()
}

// Rehearse does beforehand what could fail when services have stopped: the graft, the joined root, the merge of /etc.
func (r *Roots) Rehearse(root store.Root, f facts.Facts, rec *record.Record) error {
	if err := r.Graft(root, f, rec); err != nil {
		return err
	}
	_, err := r.Machine.Trees.PlanEtc(r.EtcChange(root.ID, f, rec))
	return err
}

// PrettyName returns the name of the system in a root, as its os-release has it.
func (r *Roots) PrettyName(id string) string {
	const maxRelease = 64 << 10
	if root, err := r.Machine.Trees.Root(id); err == nil {
		return root.Info.OS.PrettyName
	}
	text, err := r.Machine.Disk.ReadFile(r.Path("/etc/os-release"), maxRelease)
	if err != nil {
		return id
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"'`)
		}
	}
	return id
}

// Next describes a root to the machine that is to run it.
func (r *Roots) Next(id string, f facts.Facts) assembly.Next {
	n := assembly.Next{
		ID: id, Persist: r.Config.State.Persist, ImageOwned: r.Config.State.ImageOwned,
		HostMount: HostMount, KernelRelease: f.KernelRelease, KernelVersion: f.KernelVersion,
	}
	if id == switcher.HostRoot {
		return n
	}
	state := r.Path(record.StateDir)
	dir := filepath.Join(state, "roots", id)
	n.CFS, n.Objects = filepath.Join(dir, "root.cfs"), filepath.Join(state, "objects")
	n.Graft, n.Etc = filepath.Join(dir, "graft"), filepath.Join(dir, "etc")
	return n
}

// EtcChange describes the merge of /etc for a root. The changes to carry over are those of the running root; after a full
// reboot, which lands on the host root, those of the root that ran before it.
func (r *Roots) EtcChange(id string, f facts.Facts, rec *record.Record) machine.EtcChange {
	c := machine.EtcChange{
		Next: r.Next(id, f), Current: "/etc", Adopt: r.Config.AdoptedPaths(), Ledger: r.Path(ledgerFile),
	}
	base := f.Root
	if base == switcher.HostRoot {
		base = rec.LastGood()
	}
	if base != switcher.HostRoot {
		before := r.Next(base, f)
		c.Before = &before
		if base != f.Root {
			c.Current = before.Etc
		}
	}
	return c
}

// Graft lays what the host needs over a staged root: mount points, and the agent where the image has none.
func (r *Roots) Graft(root store.Root, f facts.Facts, rec *record.Record) error {
	n, disk := r.Next(root.ID, f), r.Machine.Disk
	err := r.Machine.Trees.Graft(machine.Graft{
		Next: n, MountPoints: r.mountPoints(f), Agent: !root.Info.HasAgent,
		// It depends on the way to the root whose fstab it will have, so that every mount point of each must exist.
		Etcs:  []string{"/etc", n.Etc, r.Next(rec.LastGood(), f).Etc},
		State: slices.Concat(r.Config.State.Persist, []string{"/etc"}),
	})
	// A root that filled the disk must not keep the host from going back, or on, to one that ran before.
	if record.NoRoom(err) && disk.Exists(n.Graft) && disk.Exists(n.Etc) {
		r.Log.Warn("cannot renew the host's part of the root for lack of space; the former one is used",
			zap.String("root", root.ID), zap.Error(err))
		err = nil
	}
	if err != nil {
		return err
	}
	return incompatible(r.Machine.Trees.Preflight(n))
}

// mountPoints lists the directories that something is mounted on in every new root.
func (r *Roots) mountPoints(f facts.Facts) []string {
	points := slices.Concat([]string{"/dev", "/proc", "/sys", "/run", "/tmp", "/etc"}, r.Config.State.Persist)
	if r.HaveModules(f) {
		points = append(points, "/usr/lib/modules/"+f.KernelRelease)
	}
	return points
}

// HaveModules reports whether the modules of the running kernel are at hand.
func (r *Roots) HaveModules(f facts.Facts) bool {
	return r.Machine.Kernel.HaveModules(rootfs.Kernel{Release: f.KernelRelease, Version: f.KernelVersion})
}

// VersionOf returns the version that a root was accepted as, or that its image has; "" when neither is known.
func (r *Roots) VersionOf(root string, rec *record.Record) string {
	if m, ok := rec.Accepted[root]; ok || root == switcher.HostRoot {
		return m.Version
	}
	staged, err := r.Machine.Trees.Root(root)
	if err != nil {
		return ""
	}
	return staged.Info.Version
}

// MakeReady prepares a root that ran before for going there, and returns its version. The error is an ErrNoRoot or an
// ErrIncompatible when that cannot be.
func (r *Roots) MakeReady(id string, f facts.Facts, rec *record.Record) (string, error) {
	if id == switcher.HostRoot {
		if err := r.Machine.Trees.HostRootMounted(HostMount); err != nil {
			return "", fmt.Errorf("%w: the host root is not mounted at %s; a full reboot mounts it again: %w", ErrNoRoot, HostMount, err)
		}
		return "", r.checkReturn(id, f)
	}
	root, err := r.Machine.Trees.Root(id)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrNoRoot, id, err)
	}
	if !r.Machine.Disk.Exists(r.Next(id, f).Etc) {
		return "", fmt.Errorf("%w: %s was staged but never ran; `updatectl apply` goes there", ErrNoRoot, id)
	}
	if err := r.checkReturn(id, f); err != nil {
		return "", err
	}
	return root.Info.Version, r.Graft(root, f, rec)
}

// Find returns the root with that identity, or whose identity begins with it. The error is an ErrNoRoot.
func (r *Roots) Find(name string) (store.Root, error) {
	if name == switcher.HostRoot {
		return store.Root{}, fmt.Errorf("%w: the host root was installed, not staged, and has no evidence", ErrNoRoot)
	}
	roots, err := r.Machine.Trees.Roots()
	if err != nil {
		return store.Root{}, err
	}
	var found []store.Root
	for _, root := range roots {
		if name != "" && strings.HasPrefix(root.ID, name) {
			found = append(found, root)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return store.Root{}, fmt.Errorf("%w: %q", ErrNoRoot, name)
	}
	return store.Root{}, fmt.Errorf("%w: %q fits %d roots", ErrNoRoot, name, len(found))
}
