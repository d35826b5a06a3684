// Package roots answers what a staged root would become on this host: at which level the host can switch to it, what
// is laid over its image, and which /etc it gets. It promises that nothing half made carries its final name, and that
// the /etc a root was good with is kept until a newer one is good.
package roots

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Roots are the staged roots of a host.
type Roots struct{ *host.Host }

var (
	// ErrFullReboot means that the switch needs a full reboot.
	ErrFullReboot = errors.New("a full reboot is needed")
	// ErrIncompatible means that the image cannot run on this host.
	ErrIncompatible = errors.New("not compatible with this host")
	// ErrNoRoot means that there is no such root.
	ErrNoRoot = errors.New("no such root")
	// ErrHostRoot means that a command takes staged roots only, and not the host root.
	ErrHostRoot = errors.New("the host root was installed, not staged")
)

// noRoot is an ErrNoRoot in other words.
type noRoot string

func (n noRoot) Error() string { return string(n) }
func (noRoot) Unwrap() error   { return ErrNoRoot }

// NoRoot returns an [ErrNoRoot] in words of the caller.
func NoRoot(format string, args ...any) error { return noRoot(fmt.Sprintf(format, args...)) }

const (
	// HostMount is where the host root stays mounted while an image root runs.
	HostMount = switcher.PrivateDir + "/host"
	// ledgerFile lists the owner of every uid and gid ever assigned here.
	ledgerFile = record.StateDir + "/ids.json"
)

// Open creates the directories of the roots for a command that may write to them. The error is a [host.ErrPermission]
// when the caller is not root.
func (r *Roots) Open() error {
	if !r.Machine.Superuser {
		return fmt.Errorf("cannot change the roots of the host: %w", host.ErrPermission)
	}
	return r.Machine.Trees.Prepare()
}

// Rehearse does what could fail later, when services have stopped: it looks where the state is, plans the merge of
// /etc, makes the graft, and checks the joined root. The error is a [config.ErrConfig] if a state directory cannot be
// kept.
func (r *Roots) Rehearse(root store.Root, f facts.Facts, rec *record.Record) error {
	return rehearse(r, root, r.Next(root.ID, f), f, rec)
}

// rehearse is [Roots.Rehearse] for a root that is assembled as next.
func rehearse(r *Roots, root store.Root, n assembly.Next, f facts.Facts, rec *record.Record) error {
	if err := CheckIntact(r, root.ID, record.VerbApply); err != nil {
		return err
	}
	if _, err := r.PlanState(root.ID, f); err != nil {
		return err
	}
	report, err := r.Machine.Trees.PlanEtc(r.EtcChange(root.ID, f, rec))
	if err == nil {
		err = CheckOwners(report)
	}
	if err != nil {
		return err
	}
	n.Owners = copies.Owners{UID: report.Correction.IDs.UIDs, GID: report.Correction.IDs.GIDs}
	return r.graft(root, n, f, rec)
}

// PlanState returns the state directories that are made when the host switches to a root for the first time. The error
// is a [config.ErrConfig] if one cannot be kept.
func (r *Roots) PlanState(id string, f facts.Facts) ([]string, error) {
	n := r.Machine.Trees.WithFstab(r.Next(id, f), "/etc")
	made, err := r.Machine.Mounts.PlanState(n)
	if errors.Is(err, assembly.ErrState) {
		err = fmt.Errorf("%w: %s[state] persist: %w", config.ErrConfig, r.Config.Where("state.persist"), err)
	}
	return made, err
}

// PrettyName returns the PRETTY_NAME in the os-release of a root, or else the identity of the root.
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

// Next returns what assembling a root needs: its files, and what it gets from the host.
func (r *Roots) Next(id string, f facts.Facts) assembly.Next {
	n := assembly.Next{
		ID: id, Persist: r.Config.State.Persist, ImageOwned: r.Config.State.ImageOwned,
		HostMount: HostMount, Own: record.StateDir, KernelRelease: f.KernelRelease, KernelVersion: f.KernelVersion,
		Collected: []string{r.Path(record.StateDir + "/roots"), r.Path(record.StateDir + "/staging")},
	}
	if id == switcher.HostRoot {
		return n
	}
	state := r.Path(record.StateDir)
	dir := filepath.Join(state, "roots", id)
	n.CFS, n.Objects = filepath.Join(dir, "root.cfs"), filepath.Join(state, "objects")
	n.Graft, n.Etc = filepath.Join(dir, "graft"), filepath.Join(dir, "etc")
	n.Verified = r.Config.Store.Verity == config.VerityRequire
	return n
}

// EtcChange returns the merge of /etc for a root. It carries over the changes of the running root or, on the host root
// after a full reboot, those of the last good root.
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

// regraft renews what is laid over a root that ran before, with its own /etc.
func regraft(r *Roots, root store.Root, f facts.Facts, rec *record.Record) (err error) {
	n := r.Next(root.ID, f)
	n.Return = true
	if n.Owners, err = OwnersOf(r, n); err != nil {
		return err
	}
	return r.graft(root, n, f, rec)
}

// graft lays over a staged root what the host needs there: mount points, and the agent when the image has none. The
// error is an ErrIncompatible when systemd would not accept the result as a root.
func (r *Roots) graft(root store.Root, n assembly.Next, f facts.Facts, rec *record.Record) error {
	disk := r.Machine.Disk
	err := r.Machine.Trees.Graft(machine.Graft{
		Next: n, MountPoints: r.mountPoints(f), Agent: !root.Info.HasAgent || n.Volatile,
		// Which /etc, and so which fstab, the root gets depends on the switch: the mount points of each must exist.
		Etcs:  []string{"/etc", n.Etc, r.Next(rec.LastGood(), f).Etc},
		State: slices.Concat(r.Config.State.Persist, []string{"/etc"}),
	})
	// A root that filled the disk must not prevent a rollback to a root that ran before, nor resuming it.
	if record.NoRoom(err) && disk.Exists(n.Graft) && disk.Exists(n.Etc) {
		r.Log.Warn("no space to renew the graft of the root; the former graft is used",
			zap.String("root", root.ID), zap.Error(err))
		err = nil
	}
	if err != nil {
		return err
	}
	return preflight(r, n)
}

// mountPoints returns the directories that every new root must have as mount points.
func (r *Roots) mountPoints(f facts.Facts) []string {
	points := slices.Concat([]string{"/dev", "/proc", "/sys", "/run", "/tmp", "/etc", HostMount}, r.Config.State.Persist)
	if r.HaveModules(f) {
		points = append(points, "/usr/lib/modules/"+f.KernelRelease)
	}
	return points
}

// HaveModules reports whether the modules of the running kernel are available.
func (r *Roots) HaveModules(f facts.Facts) bool {
	return r.Machine.Kernel.HaveModules(rootfs.Kernel{Release: f.KernelRelease, Version: f.KernelVersion})
}

// VersionOf returns the version that a root was accepted as, or else that of its image; "" when neither is known.
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

// MakeReady prepares the switch to a root that ran before, and returns the version of its image. The error is an
// ErrNoRoot or an ErrIncompatible.
func (r *Roots) MakeReady(id string, f facts.Facts, rec *record.Record) (string, error) {
	if id == switcher.HostRoot {
		err := r.Machine.Trees.HostRootMounted(HostMount)
		if err != nil { // somebody may have unmounted it
			failed := r.Machine.Mounts.Restore(rec.Switch.KeptSince(f.BootID), HostMount)
			if err = r.Machine.Trees.HostRootMounted(HostMount); err != nil {
				err = errors.Join(err, failed)
			}
		}
		if err != nil {
			return "", fmt.Errorf("%w: the host root is not mounted at %s; a full reboot mounts it again: %w",
				ErrNoRoot, HostMount, err)
		}
		return "", r.checkReturn(id, f)
	}
	root, err := r.Machine.Trees.Root(id)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrNoRoot, id, err)
	}
	if !r.Machine.Disk.Exists(r.Next(id, f).Etc) {
		return "", fmt.Errorf("%w: %s is staged but has never run; use `updatectl apply`", ErrNoRoot, id)
	}
	if err := r.checkReturn(id, f); err != nil {
		return "", err
	}
	return root.Info.Version, regraft(r, root, f, rec)
}

// Find returns the staged root that a person means by a name: its identity, the beginning of that or of its hex digits,
// or its version. The error is an ErrNoRoot when there is none, or more than one, and an ErrHostRoot for the host root.
func (r *Roots) Find(name string) (store.Root, error) {
	if name == switcher.HostRoot {
		return store.Root{}, fmt.Errorf("%w, and has no evidence", ErrHostRoot)
	}
	roots, err := r.Machine.Trees.Roots()
	rec, rerr := r.Records.Read() // without it, no version is known; a rollback must not fail for that
	var found, versions []store.Root
	for _, root := range roots {
		if Names(name, root.ID) {
			found = append(found, root)
		}
		if rerr == nil && name != "" && name == r.VersionOf(root.ID, rec) {
			versions = append(versions, root)
		}
	}
	if len(found) == 0 {
		found = versions
	}
	switch len(found) {
	case 1: // a fault of another root does not matter
		return found[0], nil
	case 0:
		return store.Root{}, errors.Join(fmt.Errorf("%w: %q", ErrNoRoot, name), err)
	}
	return store.Root{}, NoRoot("%q matches %d roots; give more characters of the root", name, len(found))
}

// Names reports whether a name is an identity, or begins it or its hex digits.
func Names(name, id string) bool {
	const least = 4 // digits that a person may name a root by
	_, digits, _ := strings.Cut(id, "-")
	return name != "" && strings.HasPrefix(id, name) || len(name) >= least && strings.HasPrefix(digits, name)
}
