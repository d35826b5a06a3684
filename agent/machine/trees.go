package machine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/verify"
)

// Trees are the staged roots on the disk, and what is made of them.
type Trees interface {
	// Prepare makes the directories of the store; nothing else here does.
	Prepare() error
	// Root returns a staged root, or a [store.ErrNoRoot].
	Root(id string) (store.Root, error)
	// Roots returns all complete roots, in the order of their identities.
	Roots() ([]store.Root, error)
	// Sweep removes what killed commands left half done.
	Sweep() error
	// Collect removes every root but those to keep, and the objects that no root needs.
	Collect(keep []string) (store.GCReport, error)
	// Stage brings a verified image onto the disk, or finds it there.
	Stage(context.Context, *source.Source, *image.Image, string, func(image.Event)) (store.Root, error)
	// Renew keeps today's evidence beside a root.
	Renew(store.Root, *verify.Verified, time.Time) error

	// Inspect reads what is in a root: its pristine image, or the mounted host root.
	Inspect(assembly.Next) (rootfs.Image, error)
	// HostRootMounted returns an error when the host root is not mounted where it is kept.
	HostRootMounted(at string) error
	// Graft lays what the host needs over a root.
	Graft(Graft) error
	// Preflight returns why systemd would not take a root with its graft, or nil.
	Preflight(assembly.Next) error
	// PlanEtc returns what [Trees.MergeEtc] would do.
	PlanEtc(EtcChange) (etc.Report, error)
	// MergeEtc makes a new /etc in dst, which must not exist under a final name.
	MergeEtc(c EtcChange, dst string) (etc.Report, error)
	// EtcOwners pairs the owners in the image's /etc with those of the same names in another.
	EtcOwners(next assembly.Next, other string) (assembly.Owners, error)
	// FstabPoints returns the mount points in the fstab of an /etc, none when it has no fstab.
	FstabPoints(etc string) []string
}

// Graft is what a root gets from the host besides its image.
type Graft struct {
	Next assembly.Next
	// MountPoints are directories that must exist; Etcs are the /etc directories whose fstab has more of them.
	MountPoints, Etcs []string
	// Agent: the image has no agent of its own, so it gets this one with its units.
	Agent bool
	// State are the directories that are mounted over.
	State []string
}

// EtcChange is a merge of /etc for a root.
type EtcChange struct {
	Next assembly.Next
	// Before is the root whose pristine /etc the changes of this host are counted from, nil on the host root.
	Before *assembly.Next
	// Current is the /etc whose changes are carried over.
	Current string
	// Adopt lists paths that are taken from the host root; Ledger is the file of numbers once given.
	Adopt  []string
	Ledger string
}

// hostTrees are the roots below a state directory of this machine.
type hostTrees struct{ *store.Store }

func (t hostTrees) Collect(keep []string) (store.GCReport, error) { return t.GC(keep) }

func (t hostTrees) Stage(ctx context.Context, src *source.Source, i *image.Image, reference string,
	progress func(image.Event)) (store.Root, error) {
	return image.Stage(ctx, t.Store, src, i, reference, progress)
}

func (hostTrees) Renew(root store.Root, v *verify.Verified, at time.Time) error {
	_, err := root.Renew(v, at)
	return err
}

func (hostTrees) Inspect(n assembly.Next) (rootfs.Image, error) {
	if n.ID == switcher.HostRoot {
		return rootfs.ReadImage(n.HostMount)
	}
	tree, err := n.Open()
	if err != nil {
		return rootfs.Image{}, err
	}
	defer tree.Close()
	return rootfs.ReadImage(tree.Path())
}

func (hostTrees) HostRootMounted(at string) error { return rootfs.Acceptable(at) }

func (t hostTrees) Graft(g Graft) error {
	tree, err := g.Next.Open()
	if err != nil {
		return err
	}
	defer tree.Close()
	n := g.Next
	for _, dir := range append(g.Etcs, tree.Path()+"/etc") {
		n.Fstab = append(n.Fstab, t.FstabPoints(dir)...)
	}
	made := assembly.Graft{MountPoints: slices.Concat(g.MountPoints, n.Fstab), Stay: n.Mounts(tree.Path())}
	if g.Agent || !assembly.HasGuard(tree.Path()) { // an agent from before there was a guard would end it
		made.Agent = "/proc/self/exe" // the guard's own binary has no name
		made.Units = configs.Units()
	}
	return made.Build(tree.Path(), n.Graft, g.State)
}

func (hostTrees) Preflight(n assembly.Next) error { return n.Preflight() }

func (hostTrees) PlanEtc(c EtcChange) (report etc.Report, err error) {
	err = c.open(func(in etc.Inputs) error {
		report, err = etc.Plan(in)
		return err
	})
	return report, err
}

func (hostTrees) MergeEtc(c EtcChange, dst string) (report etc.Report, err error) {
	err = c.open(func(in etc.Inputs) error {
		report, err = etc.Merge(in, dst)
		return err
	})
	return report, err
}

func (hostTrees) EtcOwners(next assembly.Next, other string) (o assembly.Owners, err error) {
	tree, err := next.Open()
	if err != nil {
		return o, err
	}
	defer tree.Close()
	o.UID, o.GID, err = etc.Numbers(tree.Path()+"/etc", other)
	return o, err
}

func (hostTrees) FstabPoints(dir string) []string {
	fstab, err := os.Open(filepath.Join(dir, "fstab"))
	if err != nil {
		return nil
	}
	defer fstab.Close()
	return etc.FstabMountPoints(fstab)
}

// open joins the pristine images and hands their /etc to do.
func (c EtcChange) open(do func(etc.Inputs) error) error {
	next, err := c.Next.Open()
	if err != nil {
		return err
	}
	defer next.Close()
	in := etc.Inputs{Current: c.Current, Next: next.Path() + "/etc", Adopt: c.Adopt, Ledger: c.Ledger}
	if c.Before != nil {
		old, err := c.Before.Open()
		if err != nil {
			return fmt.Errorf("cannot open the root that the changes of /etc are counted from: %w", err)
		}
		defer old.Close()
		in.Old = old.Path() + "/etc"
	}
	return do(in)
}
