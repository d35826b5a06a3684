package simulation

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"time"

	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/simulation/disk"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/behind"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/etc/difference"
	"github.com/updatectl/updatectl/switcher/fetchback"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/packages"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/verify"
)

// trees are the staged roots as one process sees them.
type trees struct{ p *process }

func (t trees) disk() processDisk { return processDisk(t) }

func (t trees) local(name string) string { return t.disk().local(name) }

const (
	rootsDir   = record.StateDir + "/roots"
	stagingDir = record.StateDir + "/staging"
)

func (t trees) Prepare() error {
	return errors.Join(t.disk().MkdirAll(rootsDir, 0), t.disk().MkdirAll(stagingDir, 0))
}

func (t trees) Root(id string) (store.Root, error) {
	t.disk().enter("look for the root", path.Join(rootsDir, id))
	defer t.p.m.mu.Unlock()
	return t.p.m.root(id)
}

// root returns a root that is on the disk as a whole. The machine is locked.
func (m *Machine) root(id string) (store.Root, error) {
	if !m.complete(id) {
		return store.Root{}, fmt.Errorf("%w: %q", store.ErrNoRoot, id)
	}
	r := store.Root{ID: id, Dir: path.Join(m.publisher.root, rootsDir, id)}
	r.Info.Version = m.publisher.versions[id]
	r.Info.Platform.Architecture = runtime.GOARCH
	r.Info.OS.PrettyName = "Example " + r.Info.Version
	return r, nil
}

func (t trees) Roots() ([]store.Root, error) {
	t.disk().enter("list", rootsDir)
	defer t.p.m.mu.Unlock()
	var list []store.Root
	for _, name := range t.p.m.disk.Now.Glob(rootsDir + "/*") {
		if r, err := t.p.m.root(path.Base(name)); err == nil {
			list = append(list, r)
		}
	}
	return list, nil
}

// Units are the same in every root.
func (t trees) Units(_ machine.EtcChange, _ bool, do func(keep.Tree)) error {
	do(keep.Tree{Image: rootfs.Dir(t.p.m.publisher.root)})
	return nil
}

func (t trees) Sweep() error {
	names := append(t.glob(stagingDir+"/*"), t.glob(rootsDir+"/*/.*.json.*")...)
	var errs []error
	for _, name := range names {
		errs = append(errs, t.disk().RemoveAll(name))
	}
	return errors.Join(errs...)
}

func (t trees) glob(pattern string) []string {
	t.disk().enter("list", pattern)
	defer t.p.m.mu.Unlock()
	return t.p.m.disk.Now.Glob(pattern)
}

func (t trees) Unneeded([]string) (store.GCReport, error) { return store.GCReport{}, nil }

func (t trees) Collect(keep []string) (store.GCReport, error) {
	var report store.GCReport
	for _, name := range t.glob(rootsDir + "/*") {
		id := path.Base(name)
		if slices.Contains(keep, id) {
			continue
		}
		grave := path.Join(stagingDir, "removed-"+id)
		err := errors.Join(t.disk().RemoveAll(grave), t.disk().Rename(name, grave))
		if err == nil {
			t.disk().enter("sync", name)
			t.p.m.disk.Sync()
			t.p.m.tell("%s removes %s", t.p, id)
			if t.p.m.rec != nil {
				t.p.m.checkRecord(t.p)
			}
			t.p.m.mu.Unlock()
		}
		if err != nil {
			return report, err
		}
		report.Roots = append(report.Roots, id)
	}
	return report, t.Sweep()
}

// Stage can be killed with half of the root on the disk.
func (t trees) Stage(ctx context.Context, _ *source.Source, i *image.Image, _ string,
	_ func(image.Event)) (store.Root, error) {
	m, id := t.p.m, i.ID()
	if root, err := t.Root(id); err == nil {
		return root, t.Renew(root, nil, time.Time{})
	}
	if err := m.publisher.keepEvidence(i); err != nil {
		return store.Root{}, err
	}
	half, final := path.Join(stagingDir, id), path.Join(rootsDir, id)
	fail := func(err error) (store.Root, error) {
		return store.Root{}, errors.Join(store.AsNoSpace(err), t.disk().RemoveAll(half))
	}
	if err := errors.Join(t.disk().RemoveAll(half), t.disk().MkdirAll(half, 0)); err != nil {
		return fail(err)
	}
	for _, part := range []string{"root.cfs", "image.json"} {
		t.disk().enter("fetch into", half)
		err := t.disk().refused("write", half)
		if err == nil {
			err = t.disk().put("write", path.Join(half, part), disk.File{Content: []byte(id)})
		}
		more := m.slowFetch
		m.mu.Unlock()
		if !pause(m.between("fetch", 100*time.Millisecond, 2*time.Second)+more, ctx.Done()) {
			err = ctx.Err()
		}
		if err != nil {
			return fail(err)
		}
	}
	t.disk().enter("sync", half)
	m.disk.Sync()
	m.mu.Unlock()
	err := t.disk().Rename(half, final)
	if err != nil { // a part of it is there
		if err = t.disk().RemoveAll(final); err == nil {
			err = t.disk().Rename(half, final)
		}
	}
	if err != nil {
		return fail(err)
	}
	t.disk().enter("sync", final)
	m.disk.Sync()
	m.mu.Unlock()
	return t.Root(id)
}

// HasVerity and Fsck are about content, which the roots of a simulation do not have.
func (trees) HasVerity() (bool, error) { return false, nil }

func (t trees) Check(root store.Root) error {
	t.p.m.mu.Lock()
	defer t.p.m.mu.Unlock()
	if t.p.m.damaged[root.ID] {
		return fmt.Errorf("%w: %s", store.ErrDamaged, root.ID)
	}
	return nil
}

func (trees) Fsck(context.Context) (store.FsckReport, error) { return store.FsckReport{}, nil }

func (t trees) At(id string) (store.Root, error) { return t.Root(id) }

func (t trees) CheckObjects(r store.Root) error { return t.Check(r) }

func (trees) Seal(store.Root) error { return nil }

func (trees) Unswap() (bool, error) { return false, nil }

func (trees) Discard(store.Damage) error { return nil }

func (t trees) Renew(root store.Root, _ *verify.Verified, _ time.Time) error {
	return t.disk().WriteFile(path.Join(rootsDir, root.ID, "evidence.json"), []byte("evidence"), 0)
}

func (t trees) Inspect(n assembly.Next) (rootfs.Image, error) {
	t.disk().enter("look into", n.ID)
	m := t.p.m
	defer m.mu.Unlock()
	i := rootfs.Image{Systemd: m.options.Systemd, Init: "/usr/lib/systemd/systemd", Machine: runtime.GOARCH}
	if n.ID == switcher.HostRoot {
		return i, nil
	}
	if !m.complete(n.ID) {
		return i, fmt.Errorf("cannot open %s: it is not on the disk", n.ID)
	}
	if m.hasModules(n.ID) {
		i.Kernels = []rootfs.Kernel{m.kernelOf(n.ID)}
	}
	if m.ills[n.ID] == NeedsFull {
		i.Kargs = []string{"needs.full=1"}
	}
	return i, nil
}

// hasModules reports whether an image has the modules of the running kernel. The machine is locked.
func (m *Machine) hasModules(id string) bool {
	if m.options.Kernels && id != switcher.HostRoot {
		return m.kernel == m.kernelOf(id)
	}
	return id == switcher.HostRoot || len(m.publisher.versions[id])%2 == 0 &&
		(m.options.Seed+uint64(m.publisher.versions[id][1]))%2 == 0
}

// Packages, Compare and Free are for people who look at a plan; no history does.
func (trees) Packages(assembly.Next) ([]packages.Package, error) { return nil, nil }

func (trees) Compare(_, _ store.Root, _ func(string) bool) (composefs.Changes, error) {
	return composefs.Changes{}, nil
}

func (trees) Free(store.Root) (int64, error) { return 0, nil }

func (t trees) HostRootMounted(string) error { return nil }

// Graft can be killed with half of it there.
func (t trees) Graft(g machine.Graft) error {
	dir := t.local(g.Next.Graft)
	half := dir + ".new"
	if err := errors.Join(t.disk().RemoveAll(half), t.disk().MkdirAll(half, 0)); err != nil {
		return err
	}
	t.disk().enter("fill", half)
	err := t.disk().refused("write", half)
	if err == nil && !t.p.m.complete(g.Next.ID) {
		err = fmt.Errorf("cannot open %s: it is not on the disk", g.Next.ID)
	}
	if err == nil {
		err = t.disk().put("write", half+"/agent", disk.File{Content: []byte("agent")})
	}
	t.p.m.mu.Unlock()
	if err == nil {
		err = errors.Join(t.disk().RemoveAll(dir), t.disk().Rename(half, dir))
	}
	if err != nil {
		return errors.Join(err, t.disk().RemoveAll(half))
	}
	t.disk().enter("sync", dir)
	t.p.m.disk.Sync()
	t.p.m.mu.Unlock()
	return nil
}

func (t trees) Preflight(n assembly.Next) error {
	t.disk().enter("preflight", n.ID)
	defer t.p.m.mu.Unlock()
	if t.p.m.ills[n.ID] == Unacceptable {
		return errors.New("systemd would not take it: there is no os-release")
	}
	return nil
}

func (t trees) PlanEtc(c machine.EtcChange) (etc.Report, error) {
	t.disk().enter("plan the /etc of", c.Next.ID)
	defer t.p.m.mu.Unlock()
	_, err := t.source(c)
	return etc.Report{}, err
}

func (t trees) LackingFor(c machine.EtcChange) ([]string, error) {
	t.disk().enter("look what is lacking in", c.Next.ID)
	defer t.p.m.mu.Unlock()
	_, err := t.source(c)
	return nil, err
}

func (t trees) StaysBehind(machine.EtcChange, time.Duration) (behind.Report, error) {
	return behind.Report{}, nil
}

func (t trees) FetchBack(fetchback.Order) (fetchback.Result, error) { return fetchback.Result{}, nil }

// source returns the /etc whose changes are carried over. The machine is locked.
func (t trees) source(c machine.EtcChange) (string, error) {
	m := t.p.m
	if c.Before != nil && !m.complete(c.Before.ID) {
		return "", fmt.Errorf("cannot open the root that the changes of /etc are counted from: %s is not on the disk",
			c.Before.ID)
	}
	if !m.complete(c.Next.ID) {
		return "", fmt.Errorf("cannot open %s: it is not on the disk", c.Next.ID)
	}
	if c.Current == "/etc" {
		return m.mounted.etc, nil
	}
	return m.etcOf(t.local(c.Current))
}

// MergeEtc can be killed with half of it there.
func (t trees) MergeEtc(c machine.EtcChange, dst string, _ bool) (etc.Report, error) {
	m := t.p.m
	dst = t.local(dst)
	half := dst + ".new"
	if err := t.disk().RemoveAll(half); err != nil {
		return etc.Report{}, err
	}
	t.disk().enter("merge", half)
	from, err := t.source(c)
	m.etcs++
	label := disk.File{Content: fmt.Appendf(nil, "/etc %d of %s", m.etcs, m.publisher.name(c.Next.ID))}
	if err == nil {
		err = t.disk().refused("write", half)
	}
	if err == nil && m.ills[c.Next.ID] == Unmergeable {
		err = errors.New("cannot merge passwd")
	}
	if err == nil {
		m.tell("%s merges /etc %d of %s from %s", t.p, m.etcs, c.Next.ID, from)
		err = t.disk().put("write", half+"/label", label)
		t.disk().change(half, func(f disk.Files) { f.MakeDir(half) })
	}
	m.mu.Unlock()
	if err == nil {
		t.disk().enter("merge the rest into", half)
		err = t.disk().put("write", half+"/rest", label)
		m.disk.Sync()
		m.mu.Unlock()
	}
	if err == nil {
		err = t.disk().Exchange(half, dst)
	}
	if err != nil {
		return etc.Report{}, errors.Join(err, t.disk().RemoveAll(half))
	}
	t.disk().enter("sync", dst)
	m.disk.Sync()
	m.mu.Unlock()
	return etc.Report{}, nil
}

// DiffEtc and TakeEtc are for people who look at one root; no history does.
func (trees) DiffEtc(assembly.Next, string, []string) ([]difference.Difference, error) {
	return nil, nil
}

func (trees) TakeEtc(assembly.Next, string, string, time.Time) (difference.Taken, error) {
	return difference.Taken{}, nil
}

func (t trees) EtcOwners(next assembly.Next, other string) (copies.Owners, error) {
	t.disk().enter("read the owners in", t.local(other))
	defer t.p.m.mu.Unlock()
	if _, err := t.p.m.etcOf(t.local(other)); err != nil {
		return copies.Owners{}, err
	}
	return copies.Owners{}, nil
}

// CarryUsers fails now and then: no switch depends on it.
func (t trees) CarryUsers(m machine.UserMove) ([]string, error) {
	t.disk().enter("carry users over into", m.To)
	defer t.p.m.mu.Unlock()
	return nil, t.disk().refused("write", m.History)
}

func (trees) ChangedInEtc(string, string, string) ([]string, error) { return nil, nil }

func (trees) WithFstab(next assembly.Next, _ ...string) assembly.Next { return next }
