package assembly

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/sys/mountinfo"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/carried"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/mount"
)

// carryHost keeps the host root mounted, with its /usr if that has a file system of its own, so that the host can roll
// back to it. A root that ran before does without it if it has to: its graft may be older than this mount point, the
// disk of the host root may fail, and a full reboot leads to the host root, too.
func (n Next) carryHost() error {
	err := mountHost(n.HostMount)
	if n.Return {
		return nil
	}
	return err
}

// mountHost mounts the host root at a directory of the assembled root.
func mountHost(hostMount string) error {
	from, err := findHost(hostMount)
	if err != nil || from == "" {
		return err
	}
	at, err := placeInRoot(hostMount)
	if err != nil {
		return err
	}
	if err := cloneHost(from, at, true); err != nil { // nobody may change it while an image runs
		return err
	}
	usr := filepath.Join(from, "usr")
	if separate, err := mount.IsMountPoint(usr); err != nil || !separate {
		return err
	}
	return cloneHost(usr, at+"/usr", true)
}

// findHost returns where the running root has the host root: at / or, in an image root, at a directory. It returns ""
// if an image root does not have it, because somebody has unmounted it.
func findHost(hostMount string) (string, error) {
	if running, err := facts.MountedRoot(); err != nil || running == switcher.HostRoot {
		return "/", err
	}
	if mounted, err := mount.IsMountPoint(hostMount); err != nil || !mounted {
		return "", err
	}
	return hostMount, nil
}

// hostMounts returns where the host root is mounted, and where its /usr is if that has a file system of its own.
func (n Next) hostMounts() []string {
	for _, usr := range []string{n.HostMount + "/usr", "/usr"} { // in an image root, and on the host root
		if separate, err := mount.IsMountPoint(usr); err == nil && separate {
			return []string{n.HostMount, n.HostMount + "/usr"}
		}
	}
	return []string{n.HostMount}
}

// cloneHost mounts a clone of a file system of the host root, without those mounted below it, at another directory.
func cloneHost(from, at string, ro bool) error {
	tree, err := mount.Clone(from, false)
	if err != nil {
		return err
	}
	defer tree.Close()
	if err := tree.SetReadOnly(ro); err != nil {
		return err
	}
	return tree.Attach(at)
}

// joinHost mounts the host root at assembly, with the state paths that are separate mounts there, and with its /usr if
// that is one: systemd does not mount that itself.
func (n Next) joinHost() error {
	if err := cloneHost(n.HostMount, assembly, false); err != nil {
		return err
	}
	if separate, err := mount.IsMountPoint(n.HostMount + "/usr"); err != nil {
		return err
	} else if separate {
		if err := cloneHost(n.HostMount+"/usr", assembly+"/usr", false); err != nil {
			return err
		}
	}
	n.Return = true // the host root has its own directories, and lacks those of the configuration that it never had
	known := n.known(carried.UnitDirsIn(assembly)...)
	for _, p := range n.byDepth() {
		if known.MountsOnUse(p) {
			continue // the host root mounts it itself
		}
		from, err := n.origins().Find(p)
		if err != nil {
			return err
		}
		if from.Dir == "" || from.OnHost || !isCarriedHere(p) {
			continue
		}
		at, err := securejoin.SecureJoin(assembly, p)
		if err != nil {
			return fmt.Errorf("cannot resolve %s in the host root: %w", p, err)
		}
		if same, err := sameDirectory(from.Dir, at); err != nil || same {
			if err != nil {
				return err
			}
			continue
		}
		if err := (carrier{n}).mountState(p, from, at); err != nil {
			return err
		}
	}
	return nil
}

// isCarriedHere reports whether the running image root has the state path p from the host root: whether something is
// mounted there. A network file system is unmounted by now, and an automount has nothing to carry.
func isCarriedHere(p string) bool {
	real, err := filepath.EvalSymlinks(p)
	if err != nil {
		return false
	}
	mounts, err := mountinfo.GetMounts(facts.MountedAt(real))
	return err == nil && len(mounts) > 0 && mounts[len(mounts)-1].FSType != "autofs"
}

// sameDirectory reports whether both paths are the same directory, or one of them does not exist: there is nothing to
// mount then.
func sameDirectory(p, at string) (bool, error) {
	a, err := os.Stat(p)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot look at %s: %w", p, err)
	}
	b, err := os.Stat(at)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot look at %s: %w", at, err)
	}
	return os.SameFile(a, b), nil
}
