package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/behind"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/etc/derived"
	"github.com/updatectl/updatectl/switcher/etc/difference"
	"github.com/updatectl/updatectl/switcher/etc/fstab"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/fetchback"
	"github.com/updatectl/updatectl/switcher/graft"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/mount"
	"github.com/updatectl/updatectl/switcher/packages"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/volatile"
	"github.com/updatectl/updatectl/verify"
	"golang.org/x/sys/unix"
)

// Trees are the staged roots on the disk, and what is done with their trees.
type Trees interface {
	// Prepare makes the directories of the store. No other call makes them.
	Prepare() error
	// Root returns the staged root with an identity. The error is a [store.ErrNoRoot] if there is none.
	Root(id string) (store.Root, error)
	// Roots returns all complete roots, in the order of their identities. The error is about those that cannot be read.
	Roots() ([]store.Root, error)
	// Sweep removes what killed commands left unfinished.
	Sweep() error
	// Collect removes every root but those in keep and those that are mounted, and every object that none of these needs.
	Collect(keep []string) (store.GCReport, error)
	// Unneeded returns what Collect would remove.
	Unneeded(keep []string) (store.GCReport, error)
	// Stage writes a verified image to the disk as a root, unless it is there already, and returns that root.
	Stage(context.Context, *source.Source, *image.Image, string, func(image.Event)) (store.Root, error)
	// HasVerity reports whether the kernel can verify the files of roots when they are read.
	HasVerity() (bool, error)
	// Check returns a [store.ErrDamaged] if a root is not what was signed any more, see [image.CheckRoot].
	Check(store.Root) error
	// CheckObjects returns a [store.ErrDamaged] if an object of a root is missing or has other content.
	CheckObjects(store.Root) error
	// Seal makes the kernel verify a root that was staged without, where it can.
	Seal(store.Root) error
	// Fsck looks for damage in the roots and their objects, see [store.Store.Fsck] and [image.CheckRoot].
	Fsck(context.Context) (store.FsckReport, error)
	// Unswap exchanges the directories of two roots that have each other's files, and reports whether there were any.
	Unswap() (bool, error)
	// At returns a root that may be damaged, with as much of its Info as can be read.
	At(id string) (store.Root, error)
	// Discard removes damage that Fsck found and that no root needs.
	Discard(store.Damage) error
	// Renew replaces the evidence kept beside a root by that of a verification at a time.
	Renew(store.Root, *verify.Verified, time.Time) error

	// Inspect returns what is in a root, read from its pristine image or from the mounted host root.
	Inspect(assembly.Next) (rootfs.Image, error)
	// Packages returns the packages of a root, from its pristine image or from the mounted host root. An error is about
	// databases that cannot be read, see [packages.Read].
	Packages(assembly.Next) ([]packages.Package, error)
	// Compare returns how the files of a staged root differ from those of another, see [store.Compare].
	Compare(old, fresh store.Root, skip func(path string) bool) (composefs.Changes, error)
	// Free returns how many bytes can be written beside a root until the file system is full.
	Free(store.Root) (int64, error)
	// HostRootMounted returns an error if the tree at a directory is no root that systemd would accept.
	HostRootMounted(at string) error
	// Graft lays what the host needs over a root.
	Graft(Graft) error
	// Preflight returns why systemd would refuse a root with its graft, nil if it would not.
	Preflight(assembly.Next) error
	// PlanEtc returns what [Trees.MergeEtc] would do.
	PlanEtc(EtcChange) (etc.Report, error)
	// LackingFor returns what the files of the host that stay in a merge need, and the new root lacks: ways in that would
	// close or open.
	LackingFor(EtcChange) ([]string, error)
	// StaysBehind returns what the host root has and the first image does not get: nothing for a merge with Before. Files
	// are measured as long as patience lasts. With a Next that has no ID, it is what stays behind whatever the image.
	StaysBehind(c EtcChange, patience time.Duration) (behind.Report, error)
	// FetchBack copies from the host root into the running root, see [fetchback.Order.Do].
	FetchBack(fetchback.Order) (fetchback.Result, error)
	// MergeEtc does that merge and replaces dst with the result, if dst is not that already. After an error, dst is as
	// before. Ahead leaves beside dst what it was merged from, in a file with the suffix EtcNote. As long as nothing of
	// that has changed, the same merge is not decided again.
	MergeEtc(c EtcChange, dst string, ahead bool) (etc.Report, error)
	// DiffEtc returns how an /etc differs from that of its pristine image, at some paths or everywhere.
	DiffEtc(next assembly.Next, current string, paths []string) ([]difference.Difference, error)
	// TakeEtc replaces a file in an /etc by the version of its pristine image.
	TakeEtc(next assembly.Next, current, name string, at time.Time) (difference.Taken, error)
	// EtcOwners maps the uids and gids of an image's files to those that the same names have in another /etc.
	EtcOwners(next assembly.Next, other string) (copies.Owners, error)
	// CarryUsers notes what was changed in the user databases of roots that ran here, and carries it into the target of a
	// switch if that keeps its /etc. Notes say what could not be carried over.
	CarryUsers(UserMove) (notes []string, err error)
	// ChangedInEtc returns what changed in the /etc of a root, by the history of CarryUsers, since the host switched to
	// it; nil if that is not known.
	ChangedInEtc(history, root, dir string) ([]string, error)
	// Units calls do with the unit files that a root starts with: those of its image and a merged /etc or, if own, the
	// /etc that it has.
	Units(c EtcChange, own bool, do func(keep.Tree)) error
	// WithFstab returns next with the mount points in the fstab and the mount units of /etc directories.
	WithFstab(next assembly.Next, etcs ...string) assembly.Next
}

// Graft is what a root gets from the host besides its image.
type Graft struct {
	Next assembly.Next
	// MountPoints are directories that must exist. Etcs are /etc directories; the mount points in their fstab must exist,
	// too.
	MountPoints, Etcs []string
	// Agent means that the image has no agent of its own, so it gets this one with its units.
	Agent bool
	// State lists the directories that are mounted over by those of the host.
	State []string
}

// EtcChange is a merge of /etc for a root.
type EtcChange struct {
	Next assembly.Next
	// Before is the root that the host runs, to find out how Current differs from its pristine /etc; nil on the host
	// root.
	Before *assembly.Next
	// Current is the /etc of the host, whose changes are carried over.
	Current string
	// Adopt lists paths to take from the host root. Ledger is the file with the owner of every uid and gid ever assigned
	// here.
	Adopt  []string
	Ledger string
}

// hostTrees are the roots below a state directory of this machine.
type hostTrees struct{ *store.Store }

func (t hostTrees) Collect(keep []string) (store.GCReport, error) {
	mounted, err := facts.MountedRoots(t.RootsDir())
	if err != nil {
		return store.GCReport{Roots: []string{}}, err
	}
	return t.GC(keep, mounted)
}

func (t hostTrees) Stage(ctx context.Context, src *source.Source, i *image.Image, reference string,
	progress func(image.Event)) (store.Root, error) {
	return image.Stage(ctx, t.Store, src, i, reference, progress)
}

func (t hostTrees) Check(root store.Root) error { return image.CheckRoot(t.Store, root) }

func (t hostTrees) Fsck(ctx context.Context) (store.FsckReport, error) {
	return t.Store.Fsck(ctx, func(root store.Root) error { return image.CheckRoot(t.Store, root) })
}

func (hostTrees) Renew(root store.Root, v *verify.Verified, at time.Time) error {
	_, err := root.Renew(v, at)
	return err
}

// inTree calls do with the tree of a root: the host root, or a pristine image.
func inTree(n assembly.Next, do func(rootfs.Dir) error) error {
	if n.ID == switcher.HostRoot {
		return do(rootfs.Dir(n.HostMount))
	}
	tree, err := n.Open()
	if err != nil {
		return err
	}
	defer tree.Close()
	return do(rootfs.Dir(tree.Path()))
}

func (hostTrees) Inspect(n assembly.Next) (image rootfs.Image, err error) {
	err = inTree(n, func(tree rootfs.Dir) error { image, err = rootfs.ReadImage(string(tree)); return err })
	return image, err
}

func (hostTrees) Packages(n assembly.Next) (list []packages.Package, err error) {
	err = inTree(n, func(tree rootfs.Dir) error { list, err = packages.Read(tree); return err })
	return list, err
}

func (hostTrees) Compare(old, fresh store.Root, skip func(string) bool) (composefs.Changes, error) {
	return store.Compare(old, fresh, skip)
}

func (hostTrees) Free(root store.Root) (int64, error) { return store.Free(root) }

func (hostTrees) HostRootMounted(at string) error { return rootfs.Acceptable(at) }

// Graft looks at the state, which a volatile root has beneath copies.
func (t hostTrees) Graft(g Graft) error { return volatile.Beneath(func() error { return t.graft(g) }) }

func (t hostTrees) graft(g Graft) error {
	tree, err := g.Next.Open()
	if err != nil {
		return err
	}
	defer tree.Close()
	n := t.WithFstab(g.Next, append(g.Etcs, tree.Path()+"/etc")...)
	stay, err := n.Mounts(tree.Path())
	if err != nil {
		return err
	}
	made := graft.Needs{MountPoints: slices.Concat(g.MountPoints, n.Fstab), Stay: stay,
		Owners: g.Next.Owners, Files: diskFiles(rootfs.Dir(tree.Path()))}
	if g.Agent || !graft.FollowsSwitches(tree.Path()) { // the image has none, or an older one
		made.Agent = "/proc/self/exe" // the guard's binary may no longer have a path
		made.Units = configs.Units()
	}
	return made.Build(tree.Path(), n.Graft, g.State)
}

// diskFiles returns the text of the files that keep the disks of the host usable in an image.
func diskFiles(image rootfs.Dir) map[string]string {
	texts := map[string]string{}
	for _, f := range configs.DiskFiles() {
		if !slices.ContainsFunc(f.Unless, image.Exists) {
			texts[f.Path] = f.Text
		}
	}
	return texts
}

func (hostTrees) Preflight(n assembly.Next) error { return n.Preflight() }

func (t hostTrees) PlanEtc(c EtcChange) (report etc.Report, err error) {
	err = c.open(func(in etc.Inputs) error {
		report, err = etc.Plan(in)
		if err != nil {
			return err
		}
		left, err := t.WithFstab(c.Next, in.Current, in.Next).LeftBehind(strings.TrimSuffix(in.Next, "/etc"))
		if in.Current != c.Current { // otherwise, the merge names what it cannot look below
			report.Notes = append(report.Notes, mountedOver(c.Current)...)
		}
		report.Notes = append(report.Notes, notesOnMounts(left)...)
		return err
	})
	return report, err
}

func (hostTrees) LackingFor(c EtcChange) (lacking []string, err error) {
	err = c.open(func(in etc.Inputs) error {
		lacking, err = etc.Lacking(in)
		return err
	})
	return lacking, err
}

// notesOnMounts returns notes on mounts that a root does not get. Containers have many; the first stand for them.
func notesOnMounts(left []string) []string {
	const most = 3
	var notes []string
	for _, point := range left[:min(most, len(left))] {
		notes = append(notes, point+": what is mounted here is not carried over, since no line of fstab names it")
	}
	if more := len(left) - most; more > 0 {
		notes = append(notes, fmt.Sprintf("%d more mounts below the state are not carried over, such as those of containers",
			more))
	}
	return notes
}

func (t hostTrees) StaysBehind(c EtcChange, patience time.Duration) (found behind.Report, err error) {
	if c.Before != nil {
		return found, nil
	}
	err = c.open(func(in etc.Inputs) error {
		report, err := etc.Plan(in)
		if err != nil {
			return err
		}
		host := rootfs.Dir(in.Host)
		root := behind.Root{Host: host, Kept: c.Next.Persist, Gets: report.Gets,
			Mounts: t.WithFstab(c.Next, in.Current, in.Next).Fstab}
		for _, u := range report.NotAdopted.Users {
			root.LeftUsers = append(root.LeftUsers, u.Name)
		}
		for _, g := range report.NotAdopted.Groups {
			root.LeftGroups = append(root.LeftGroups, g.Name)
		}
		if c.Next.ID != "" {
			root.Image = rootfs.Dir(strings.TrimSuffix(in.Next, "/etc"))
		}
		text, _ := host.ReadFile(behind.HostOnlyFile, maxHostOnly)
		list, _ := behind.ParseHostOnly(configs.HostOnly() + string(text)) // `config check` reports what is wrong
		running := behind.ReadRunning(filepath.Join(in.Host, "proc"))
		found = root.Find(running, list, report.NotAdopted.Paths, patience)
		return nil
	})
	return found, err
}

// maxHostOnly bounds the host's own list of units that a first image may lack, in bytes.
const maxHostOnly = 64 << 10

func (hostTrees) FetchBack(o fetchback.Order) (fetchback.Result, error) { return o.Do() }

func (hostTrees) MergeEtc(c EtcChange, dst string, ahead bool) (etc.Report, error) {
	merge := func() (report etc.Report, err error) {
		err = c.open(func(in etc.Inputs) error {
			report, err = etc.Merge(in, dst)
			return err
		})
		return report, err
	}
	if ahead {
		return mergeAhead(c, dst, time.Now, merge)
	}
	if report, ok := mergedBefore(c, dst, time.Now()); ok {
		return report, nil
	}
	return merge()
}

func (hostTrees) DiffEtc(next assembly.Next, current string, paths []string) ([]difference.Difference, error) {
	tree, err := next.Open()
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	return diffEtc(tree.Path()+"/etc", current, paths)
}

// diffEtc returns how an /etc differs from that of its image, below what is mounted on it: that is what a merge takes
// along.
func diffEtc(pristine, current string, paths []string) ([]difference.Difference, error) {
	rules, err := derived.Parse(configs.Derived())
	if err != nil {
		return nil, err
	}
	below, done, err := whatIsBelow(current)
	if err != nil {
		return nil, err
	}
	defer done()
	return difference.Diff(pristine, below, rules, paths)
}

func (hostTrees) TakeEtc(next assembly.Next, current, name string, at time.Time) (difference.Taken, error) {
	tree, err := next.Open()
	if err != nil {
		return difference.Taken{}, err
	}
	defer tree.Close()
	return difference.Take(tree.Path()+"/etc", current, name, at)
}

func (hostTrees) WithFstab(next assembly.Next, etcs ...string) assembly.Next {
	for _, dir := range etcs {
		next.Fstab = append(next.Fstab, fstab.UnitMountPoints(dir)...)
		file, err := durable.OpenRegular(filepath.Join(dir, "fstab"))
		if err != nil {
			continue
		}
		points, automounts := fstab.MountPoints(file)
		file.Close()
		next.Fstab, next.Automounts = append(next.Fstab, points...), append(next.Automounts, automounts...)
	}
	return next
}

// openNext returns the tree of the new image, which is empty if there is none, and what closes it.
func (c EtcChange) openNext() (path string, done func(), err error) {
	if c.Next.ID != "" {
		tree, err := c.Next.Open()
		if err != nil {
			return "", nil, err
		}
		return tree.Path(), func() { tree.Close() }, nil
	}
	empty, err := os.MkdirTemp("", "updatectl-*")
	if err == nil {
		err = os.Mkdir(empty+"/etc", 0o755)
	}
	return empty, func() { os.RemoveAll(empty) }, err
}

// whatIsBelow returns a directory as it is below what is mounted on its files and directories, and what closes it:
// that is what is on the disk. Without the right to look below, it is the directory itself.
func whatIsBelow(dir string) (path string, done func(), err error) {
	tree, err := mount.Clone(dir, false)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) { // EINVAL: the mounts of a container belong together
		return dir, func() {}, nil
	}
	if err != nil {
		return "", nil, err
	}
	return tree.Path(), func() { tree.Close() }, nil
}

// mountedOver returns a note for each mount below a directory.
func mountedOver(dir string) []string {
	below, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil // only the notes are lost
	}
	var notes []string
	for _, m := range below {
		if rel, err := filepath.Rel(dir, m.Mountpoint); err == nil && rel != "." {
			notes = append(notes, rel+": something is mounted here; what lies below it counts")
		}
	}
	slices.Sort(notes)
	return slices.Compact(notes)
}

// open opens the pristine images, and calls do with their /etc directories while they are open.
func (c EtcChange) open(do func(etc.Inputs) error) error {
	next, done, err := c.openNext()
	if err != nil {
		return err
	}
	defer done()
	current, seen, err := whatIsBelow(c.Current)
	if err != nil {
		return err
	}
	defer seen()
	in := etc.Inputs{Current: current, Host: filepath.Dir(c.Current), State: "/", Next: next + "/etc",
		Adopt: c.Adopt, Ledger: c.Ledger}
	if in.Derived, err = derived.Parse(configs.Derived()); err != nil {
		return err
	}
	if in.Owners, err = ownersOf(c.Next); err != nil {
		return err
	}
	in.Sources = fstab.Sources{Kept: c.Next.Persist, Mount: c.Next.HostMount}
	if c.Before != nil {
		old, err := c.Before.Open()
		if err != nil {
			return fmt.Errorf("cannot open the root that /etc is compared with: %w", err)
		}
		defer old.Close()
		in.Old = old.Path() + "/etc"
	}
	return do(in)
}
