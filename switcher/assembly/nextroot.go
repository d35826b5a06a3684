// Package assembly puts the next root together: the image, the graft that is laid over it, the host's state and /etc.
// It promises that systemd sees a root only when it is complete, and that nothing stays mounted when a step fails.
package assembly

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/carried"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/kept"
	"github.com/updatectl/updatectl/switcher/mount"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/volatile"
)

// Next is a root to arm: what is mounted at /, and what is carried over from the host.
type Next struct {
	// ID is the root's identity; HostRoot for the host root.
	ID string
	// CFS, Objects, Graft and Etc are the composefs image, the object store, the graft and the merged /etc.
	CFS, Objects, Graft, Etc string
	// Persist lists the state paths, which are carried over with everything mounted below them.
	Persist []string
	// Present lists the state paths that lay on storage of their own when the switch was announced. They must do so when
	// the root is armed.
	Present []string
	// Kept is where the state lay when the switch was announced. What is missing of it is mounted again first.
	Kept []kept.Dir
	// Return is whether the root ran before and is not made anew. It does without a state path that it has no mount point
	// for, and without one that cannot be kept.
	Return bool
	// Verified is whether the kernel must verify what is read from the root. A Return does without if it has to.
	Verified bool
	// Collected lists directories that gc removes things from. Nothing in them is carried over as state.
	Collected []string
	// Fstab lists the mount points in the fstab of the new root, and Automounts those that are mounted on first use.
	Fstab, Automounts []string
	// ImageOwned lists paths below a state path that come from the image because they describe it, such as the package
	// database.
	ImageOwned []string
	// Seeded is whether the root has run with this state before, so that there is nothing to seed.
	Seeded bool
	// Volatile is whether the root runs on a throw-away copy of the state and of /etc. Own is a directory that stays the
	// real one all the same: that of the agent.
	Volatile bool
	Own      string
	// Owners maps the image's uids and gids to the host's. The files of the image are shown with these.
	Owners copies.Owners
	// HostMount is where the host root stays mounted.
	HostMount string
	// KernelRelease and KernelVersion name the running kernel. Its modules are carried over.
	KernelRelease, KernelVersion string
}

// assembly is where a root is put together, out of systemd's sight.
const assembly = switcher.RunDir + "/next"

// ErrNumbers means that the files of the image cannot be shown with the host's numbers.
var ErrNumbers = mount.ErrNumbers

// ErrNotVerified means that the kernel cannot verify what is read from the root.
var ErrNotVerified = mount.ErrNotVerified

// scratch is a mount point for parts of a root while they are joined.
const scratch = switcher.RunDir + "/scratch"

// Open returns the pristine image of the root for reading: without graft and state, with the image's numbers, and
// attached nowhere. The caller closes it.
func (n Next) Open() (*mount.Tree, error) {
	pristine := n.unnumbered()
	pristine.Graft, pristine.Verified = "", false // the running root may be older than what the operator requires
	return pristine.joinGraft()
}

// Preflight joins the image with its graft, without attaching it, and returns an error if systemd would not accept it.
// The error is an [ErrNumbers] if its files cannot be shown with the host's numbers.
func (n Next) Preflight() error {
	root, err := n.joinGraft()
	if err != nil {
		return err
	}
	defer root.Close()
	return rootfs.Acceptable(root.Path())
}

// joinGraft returns the image joined with its graft, as a detached tree that shows the host's numbers.
func (n Next) joinGraft() (*mount.Tree, error) {
	return mount.Composefs(mount.Root{
		CFS: n.CFS, Objects: n.Objects, Graft: n.Graft, Source: switcher.SourcePrefix + n.ID, Scratch: scratch,
		Numbers: mount.Numbers(n.Owners), Verity: verityOf(n),
	})
}

// verityOf returns how much of the root the kernel has to verify.
func verityOf(n Next) mount.Verity {
	switch {
	case n.Return:
		return mount.VerityLenient
	case n.Verified:
		return mount.VerityRequire
	}
	return mount.VerityAuto
}

// unnumbered returns the root with its image's numbers.
func (n Next) unnumbered() Next {
	n.Owners = copies.Owners{}
	return n
}

// Arm joins the root and mounts it at /run/nextroot. It must run in PID 1's mount namespace, when services have stopped
// and file systems are still mounted. After an error, nothing is armed and nothing stays mounted. In a volatile root,
// the state that is carried over is the real one.
func Arm(n Next) (err error) {
	if err := errors.Join(Disarm(), volatile.Clear()); err != nil {
		return err
	}
	var root *mount.Tree
	if err := volatile.Beneath(func() (err error) { root, err = assemble(n); return err }); err != nil {
		return err
	}
	defer root.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, Disarm())
		}
	}()
	// One move makes the whole tree appear: a crash before it leaves the host unarmed, never half armed.
	if err := os.MkdirAll(switcher.NextRoot, 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w", switcher.NextRoot, err)
	}
	return root.Attach(switcher.NextRoot)
}

// assemble returns the root with everything that is carried over into it, as a detached tree. Nothing stays mounted.
func assemble(n Next) (root *mount.Tree, err error) {
	defer func() {
		err = errors.Join(err, mount.Detach(assembly))
		if err != nil && root != nil {
			root.Close()
			root = nil
		}
	}()
	if err := os.MkdirAll(assembly, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make a mount point: %w", err)
	}
	// By now, a helper of the shutdown may have unmounted what no process uses, as blkdeactivate(8) does.
	if rerr := kept.Restore(n.Kept, n.HostMount); rerr != nil {
		defer func() {
			if err != nil { // it may be the cause; if not, the root needs nothing of it
				err = errors.Join(err, rerr)
			}
		}()
	}
	if n.ID == switcher.HostRoot {
		err = n.joinHost()
	} else {
		err = n.joinImage()
	}
	if err != nil {
		return nil, err
	}
	if err := rootfs.Acceptable(assembly); err != nil {
		return nil, err
	}
	return mount.Clone(assembly, true)
}

// Disarm unmounts whatever is at /run/nextroot: while a root is there, systemd turns every reboot into a soft reboot.
func Disarm() error {
	if err := mount.Detach(assembly); err != nil {
		return fmt.Errorf("cannot disarm: %w", err)
	}
	if err := mount.Detach(switcher.NextRoot); err != nil {
		return fmt.Errorf("cannot disarm: %w", err)
	}
	if err := os.Remove(switcher.NextRoot); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot disarm: %w", err)
	}
	return nil
}

// Clear unmounts what a killed arming step left behind. Only a full reboot needs that.
func Clear() error {
	return errors.Join(mount.Detach(assembly), mount.Detach(scratch), volatile.Clear())
}

// Armed returns the identity of the root mounted at /run/nextroot, "" when none is. It is the source of the mount if
// that is the host root, or if somebody else armed it.
func Armed() (string, error) {
	mounts, err := mountinfo.GetMounts(facts.MountedAt(switcher.NextRoot))
	if err != nil {
		return "", fmt.Errorf("cannot read the mounts: %w", err)
	}
	if len(mounts) == 0 {
		return "", nil
	}
	return strings.TrimPrefix(mounts[len(mounts)-1].Source, switcher.SourcePrefix), nil
}

// joinImage mounts an image root, with everything that is carried over into it, at assembly.
func (n Next) joinImage() error {
	root, err := n.joinGraft()
	if err == nil {
		n.Owners = copies.Owners{} // what is seeded from there has the host's numbers already
	} else if n.Return && errors.Is(err, ErrNumbers) { // it ran before, and no way back depends on this
		root, err = n.unnumbered().joinGraft()
	}
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Attach(assembly); err != nil {
		return err
	}
	// A path through the attached root would lead into what is mounted on it next; this copy stays as the image is.
	image, err := mount.Clone(assembly, false)
	if err != nil {
		return err
	}
	defer image.Close()
	// That copy can be read, but only Linux 6.15 and newer can clone from a detached mount. So these paths are cloned from
	// the attached root, before anything is mounted over them.
	owned, err := n.cloneOwned()
	defer owned.close()
	if err != nil {
		return err
	}
	if err := n.mountEtc(); err != nil {
		return err
	}
	if err := n.mountTmp(); err != nil {
		return err
	}
	for _, p := range n.byDepth() {
		if err := (carrier{n}).carryState(p, image.Path()); err != nil {
			return err
		}
	}
	if err := (carrier{n}).cover(image.Path()); err != nil {
		return err
	}
	if err := owned.attach(n.Return); err != nil {
		return err
	}
	if err := n.carryHost(); err != nil {
		return err
	}
	return n.carryModules()
}

// mountEtc mounts the root's /etc. That lies on /var, but the flags of a hardened /var are not for it: /etc has
// scripts, such as those in cron.daily.
func (n Next) mountEtc() error {
	etc, err := mount.Clone(n.Etc, false)
	if err != nil {
		return err
	}
	defer etc.Close()
	if err := etc.AllowAll(); err != nil {
		return err
	}
	return etc.Attach(assembly + "/etc")
}

// Mounts returns the paths that [Arm] mounts in the root with this pristine image, apart from /etc and from what the
// root mounts without us.
func (n Next) Mounts(image string) ([]string, error) {
	paths := n.hostMounts()
	if n.Volatile {
		paths = append(paths, "/etc", n.Own)
	}
	known := n.knownIn(image)
	for _, p := range n.Persist {
		if left, err := n.leftToRoot(p, known); err != nil {
			return nil, err
		} else if left {
			continue
		}
		if from, err := n.origins().Find(p); err != nil || from.Dir == "" {
			continue
		}
		paths = append(paths, p)
		below, err := carried.Below(p, known)
		if err != nil {
			return nil, err
		}
		if !n.Volatile { // what fstab names is a copy there, and must stay mounted as one
			below = slices.DeleteFunc(below, known.Names)
		}
		paths = append(paths, below...)
	}
	for _, p := range n.ImageOwned {
		if rootfs.Dir(image).HasDir(p) {
			paths = append(paths, p)
		}
	}
	if n.needsTmp() {
		paths = append(paths, "/tmp")
	}
	if n.needsModules(image) {
		paths = append(paths, n.modules())
	}
	return paths, nil
}

// byDepth returns the state paths in an order in which /var comes before /var/log.
func (n Next) byDepth() []string {
	paths := slices.Clone(n.Persist)
	slices.SortFunc(paths, func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
	return paths
}

// openDirInRoot returns a handle of the directory p in a root, nil when the root has no such directory.
func openDirInRoot(root, p string) (*os.File, error) {
	f, err := rootfs.Dir(root).OpenDir(p)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look up %s in the image: %w", p, err)
	}
	return f, nil
}

// pathOf returns a path to the file of a handle. It is valid in this process, while the handle is open.
func pathOf(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// placeInRoot returns where p is in the assembled root. It makes the directory if it is missing.
func placeInRoot(p string) (string, error) {
	at, err := securejoin.SecureJoin(assembly, p)
	if err != nil {
		return "", fmt.Errorf("cannot resolve %s in the new root: %w", p, err)
	}
	if rootfs.Exists(at) {
		return at, nil
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return "", fmt.Errorf("cannot make the mount point %s: %w", p, err)
	}
	return at, nil
}

// carryModules mounts the running kernel's modules, unless the image certainly has the modules of this build.
func (n Next) carryModules() error {
	if !n.needsModules(assembly) {
		return nil
	}
	at, err := placeInRoot(n.modules())
	if err != nil {
		return err
	}
	return cloneTo(n.modules(), at, false)
}

func (n Next) modules() string { return "/usr/lib/modules/" + n.KernelRelease }

// needsModules reports whether modules of the running kernel are at hand, and the root may lack them.
func (n Next) needsModules(root string) bool {
	running := rootfs.Kernel{Release: n.KernelRelease, Version: n.KernelVersion}
	return facts.HaveModules(running) && !rootfs.Dir(root).Brings(running)
}

// mountTmp mounts a tmpfs at /tmp where that would otherwise be read-only.
func (n Next) mountTmp() error {
	if !n.needsTmp() {
		return nil
	}
	tmp, err := mount.Tmpfs(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV,
		[2]string{"mode", "1777"}, [2]string{"size", "50%"})
	if err != nil {
		return err
	}
	defer tmp.Close()
	at, err := placeInRoot("/tmp")
	if err != nil {
		return err
	}
	return tmp.Attach(at)
}

// needsTmp reports whether /tmp is neither state nor in fstab. The image's tmp.mount is not relied on: it may be masked
// in /etc, and if it is not, systemd finds /tmp already mounted.
func (n Next) needsTmp() bool {
	return !slices.Contains(n.Persist, "/tmp") && !slices.Contains(n.Fstab, "/tmp")
}

// cloneTo mounts a clone of the mount at from, as [mount.Clone] makes it, at the directory at.
func cloneTo(from, at string, recursive bool) error {
	tree, err := mount.Clone(from, recursive)
	if err != nil {
		return err
	}
	defer tree.Close()
	return tree.Attach(at)
}
