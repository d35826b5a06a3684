package roots

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/etc"
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
	HostMount  = record.StateDir + "/host"
	ledgerFile = record.StateDir + "/ids.json" // whose every uid and gid ever was
)

// OpenStore opens the store for a command that may write to it.
func (rs *Roots) OpenStore() (*store.Store, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("cannot work on the host's roots: %w", host.ErrPermission)
	}
	st, err := store.Open(rs.Path(record.StateDir))
	if err != nil {
		return nil, fmt.Errorf("cannot open the store: %w", err)
	}
	return st, nil
}

// Rehearse does beforehand what could fail when services have stopped: the graft, the joined root, the merge of /etc.
func (rs *Roots) Rehearse(st *store.Store, root store.Root, f facts.Facts, rec *record.Record) error {
	if err := rs.Graft(st, root, f, rec); err != nil {
		return err
	}
	return rs.WithEtc(st, root, f, rec, func(in etc.Inputs) error {
		_, err := etc.Plan(in)
		return err
	})
}

// PrettyName names the system of a root as its os-release does.
func (rs *Roots) PrettyName(st *store.Store, id string) string {
	if root, err := st.Root(id); err == nil {
		return root.Info.OS.PrettyName
	}
	text, err := os.ReadFile(rs.Path("/etc/os-release"))
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

// Next describes a root for the switcher.
func (rs *Roots) Next(st *store.Store, id string, f facts.Facts) assembly.Next {
	n := assembly.Next{
		ID: id, Persist: rs.Config.State.Persist, ImageOwned: rs.Config.State.ImageOwned,
		HostMount: HostMount, KernelRelease: f.KernelRelease, KernelVersion: f.KernelVersion,
	}
	if id == switcher.HostRoot {
		return n
	}
	dir := filepath.Join(rs.Path(record.StateDir), "roots", id)
	n.CFS, n.Objects = filepath.Join(dir, "root.cfs"), st.ObjectsDir()
	n.Graft, n.Etc = filepath.Join(dir, "graft"), filepath.Join(dir, "etc")
	return n
}

// WithEtc opens the pristine images and hands their /etc to do. The changes to carry over are those of the running root,
// or after a boot of the kernel, which lands on the mutable host, those of the root that ran before it.
func (rs *Roots) WithEtc(st *store.Store, root store.Root, f facts.Facts, rec *record.Record, do func(etc.Inputs) error) error {
	next, err := rs.Next(st, root.ID, f).Open()
	if err != nil {
		return err
	}
	defer next.Close()
	in := etc.Inputs{Current: "/etc", Next: next.Path() + "/etc", Adopt: rs.Config.AdoptedPaths(), Ledger: rs.Path(ledgerFile)}
	base := f.Root
	if base == switcher.HostRoot {
		base = rec.LastGood()
	}
	if base != switcher.HostRoot {
		before := rs.Next(st, base, f)
		old, err := before.Open()
		if err != nil {
			return err
		}
		defer old.Close()
		in.Old = old.Path() + "/etc"
		if base != f.Root {
			in.Current = before.Etc
		}
	}
	return do(in)
}

// Graft lays what the host needs over a staged root: mount points, and the agent where the image has none.
func (rs *Roots) Graft(st *store.Store, root store.Root, f facts.Facts, rec *record.Record) error {
	n := rs.Next(st, root.ID, f)
	image, err := n.Open()
	if err != nil {
		return err
	}
	defer image.Close()
	// Whose fstab the root will have depends on the way it is gone to, so that every mount point of each must exist.
	n.Fstab = slices.Concat(FstabPoints("/etc"), FstabPoints(n.Etc), FstabPoints(rs.Next(st, rec.LastGood(), f).Etc), FstabPoints(image.Path()+"/etc"))
	g := assembly.Graft{MountPoints: rs.mountPoints(n, f), Stay: n.Mounts(image.Path())}
	if !root.Info.HasAgent || !assembly.HasGuard(image.Path()) { // one from before there was a guard would end it
		g.Agent = "/proc/self/exe" // the guard's has no name
		g.Units = configs.Units()
	}
	err = g.Build(image.Path(), n.Graft, slices.Concat(rs.Config.State.Persist, []string{"/etc"}))
	if record.NoRoom(err) && rootfs.Exists(n.Graft) && rootfs.Exists(n.Etc) { // who filled the disk keeps nobody from going back or going on
		rs.Log.Warn("the host's part of the root cannot be made anew; the one that it ran with is taken", zap.String("root", root.ID), zap.Error(err))
		err = nil
	}
	if err != nil {
		return err
	}
	return incompatible(n.Preflight())
}

// mountPoints lists the directories that something is mounted on in a new root.
func (rs *Roots) mountPoints(n assembly.Next, f facts.Facts) []string {
	points := slices.Concat([]string{"/dev", "/proc", "/sys", "/run", "/tmp", "/etc"}, rs.Config.State.Persist)
	if HaveModules(f) {
		points = append(points, "/usr/lib/modules/"+f.KernelRelease)
	}
	return append(points, n.Fstab...)
}

// FstabPoints lists the mount points in the fstab of an /etc; none when there is no such file.
func FstabPoints(dir string) []string {
	fstab, err := os.Open(filepath.Join(dir, "fstab"))
	if err != nil {
		return nil
	}
	defer fstab.Close()
	return etc.FstabMountPoints(fstab)
}

// VersionOf is the version that a root was accepted as, or that its image has; "" when neither is known.
func (rs *Roots) VersionOf(root string, rec *record.Record) string {
	if m, ok := rec.Accepted[root]; ok || root == switcher.HostRoot {
		return m.Version
	}
	st, err := rs.OpenStore()
	if err != nil {
		return ""
	}
	staged, err := st.Root(root)
	if err != nil {
		return ""
	}
	return staged.Info.Version
}

// MakeReady tells whether a root can be gone back to, and its version.
func (rs *Roots) MakeReady(st *store.Store, id string, f facts.Facts, rec *record.Record) (string, error) {
	if id == switcher.HostRoot {
		if err := rootfs.Acceptable(HostMount); err != nil {
			return "", fmt.Errorf("%w: the host root is not mounted at %s, and is again after a boot of the kernel: %w", ErrNoRoot, HostMount, err)
		}
		return "", rs.checkWayBack(st, id, f)
	}
	root, err := st.Root(id)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrNoRoot, id, err)
	}
	if _, err := os.Stat(filepath.Join(root.Dir, "etc")); err != nil {
		return "", fmt.Errorf("%w: %s was staged but never ran; apply goes there", ErrNoRoot, id)
	}
	if err := rs.checkWayBack(st, id, f); err != nil {
		return "", err
	}
	return root.Info.Version, rs.Graft(st, root, f, rec)
}

// FindRoot finds a root by its identity or the beginning of it.
func FindRoot(st *store.Store, name string) (store.Root, error) {
	if name == switcher.HostRoot {
		return store.Root{}, fmt.Errorf("%w: the host root was installed, not staged, and has no evidence", ErrNoRoot)
	}
	roots, err := st.Roots()
	if err != nil {
		return store.Root{}, err
	}
	var found []store.Root
	for _, r := range roots {
		if name != "" && strings.HasPrefix(r.ID, name) {
			found = append(found, r)
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
