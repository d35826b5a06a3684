package assembly

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Graft is what the host needs and a read-only image lacks. It is laid over the image before that runs.
type Graft struct {
	// Agent is the path of the agent's static binary; "" when the image has an agent.
	Agent string
	// Units are the agent's unit files, by their path below /usr/lib/systemd/system. A value that begins with "-> " is the
	// target of a symbolic link.
	Units map[string]string
	// MountPoints are the directories that must exist, as absolute paths.
	MountPoints []string
	// Stay lists the mounts that come with the root, as absolute paths. They must outlive a soft reboot: nothing would
	// mount them again if a switch fails and systemd starts this root again.
	Stay []string
	// Owners maps the image's uids and gids to the host's: only the image's own files are shown with these.
	Owners Owners
	// Files are other files to lay over the image, by their absolute path.
	Files map[string]string
}

// Where grafted files are in the image.
const (
	AgentPath = "/usr/bin/updatectl"
	unitDir   = "/usr/lib/systemd/system"
)

// Build writes the graft for the image tree at image to dir, which is replaced when the graft is complete. Directories
// that the image has get its attributes, because an overlay shows those of its upper layer. state lists the directories
// that will be mounted over: what is below them needs no mount point in the image.
func (g Graft) Build(image, dir string, state []string) (err error) {
	tmp := dir + ".new"
	if err := durable.RemoveAll(tmp); err != nil {
		return fmt.Errorf("cannot clear %s: %w", tmp, err)
	}
	defer func() {
		if err != nil { // it may take the last free space
			durable.RemoveAll(tmp)
		}
	}()
	b := builder{image: image, dir: tmp, owners: g.Owners}
	if err := b.mirror("/"); err != nil {
		return err
	}
	for _, p := range g.MountPoints {
		if err := b.mountPoint(p, state); err != nil {
			return err
		}
	}
	for _, p := range g.Stay {
		if err := b.stay(p); err != nil {
			return err
		}
	}
	if err := b.updaters(); err != nil {
		return err
	}
	if err := b.files("/", g.Files); err != nil {
		return err
	}
	if g.Agent != "" {
		if err := b.agent(g); err != nil {
			return err
		}
	}
	if err := durable.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot clear %s: %w", dir, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("cannot put the graft in place: %w", err)
	}
	return durable.SyncFS(filepath.Dir(dir))
}

// builder makes a tree in dir that is laid over the one at image.
type builder struct {
	image, dir string
	owners     Owners
}

// mountPoint makes sure that the joined tree has the directory p.
func (b builder) mountPoint(p string, state []string) error {
	full, resolved, err := b.resolve(p)
	if err != nil {
		return err
	}
	st, err := os.Stat(full)
	switch {
	case err == nil && st.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("cannot mount at %s: what the image has there is no directory", p)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cannot look up %s in the image: %w", p, err)
	}
	if slices.ContainsFunc(state, func(s string) bool { return strings.HasPrefix(resolved, s+"/") }) {
		return nil
	}
	return b.mirror(resolved)
}

// resolve follows the image's symbolic links, none of which leads out of it. It returns the path of p in this process
// and in the root.
func (b builder) resolve(p string) (full, resolved string, err error) {
	full, err = securejoin.SecureJoin(b.image, p)
	if err != nil {
		return "", "", fmt.Errorf("cannot resolve %s in the image: %w", p, err)
	}
	return full, "/" + strings.TrimPrefix(strings.TrimPrefix(full, b.image), "/"), nil
}

// stayMounted keeps a soft reboot from stopping a mount unit, as systemd does automatically for / and /usr. A full
// reboot still unmounts everything at its end (systemd-shutdown(8)).
const stayMounted = "[Unit]\nDefaultDependencies=no\n"

// unitOf is the unit file of a mount that has none. Without a file, systemd reads the setting above only if no other
// unit named this one before systemd saw the mount. What= is never used: the mount is already there.
const unitOf = "[Unit]\nDescription=%[1]s, which came with the root\n[Mount]\nWhat=updatectl\nWhere=%[1]s\n"

// stay keeps p mounted during a soft reboot.
func (b builder) stay(p string) error {
	_, resolved, err := b.resolve(p)
	if err != nil {
		return err
	}
	name := filepath.Join(unitDir, unit.UnitNamePathEscape(resolved)+".mount")
	files := map[string]string{name + ".d/updatectl.conf": stayMounted}
	if !rootfs.Exists(filepath.Join(b.image, name)) {
		files[name] = fmt.Sprintf(unitOf, strings.ReplaceAll(resolved, "%", "%%"))
	}
	return b.files("/", files)
}

// file lays a file over the image. A text that begins with "-> " is the target of a symbolic link.
func (b builder) file(name, text string) error {
	at, err := b.parent(name)
	if err != nil {
		return err
	}
	if target, isLink := strings.CutPrefix(text, "-> "); isLink {
		err = os.Symlink(target, at)
	} else {
		err = os.WriteFile(at, []byte(text), 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot graft %s: %w", name, err)
	}
	return nil
}

// parent makes the directory that a file is laid in, where the links of the image lead, and returns the path of the
// file in the graft.
func (b builder) parent(name string) (string, error) {
	_, dir, err := b.resolve(filepath.Dir(name))
	if err == nil {
		err = b.mirror(dir)
	}
	return filepath.Join(b.dir, dir, filepath.Base(name)), err
}

// mirror makes the directory p and its parents in the graft, with the image's attributes where the image has them.
func (b builder) mirror(p string) error {
	if p != "/" {
		if err := b.mirror(filepath.Dir(p)); err != nil {
			return err
		}
	}
	// The image may be given as a descriptor in /proc, which is a link: hence the dot.
	to, from := filepath.Join(b.dir, p), filepath.Join(b.image, p)+"/."
	if rootfs.Exists(to) {
		return nil
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return fmt.Errorf("cannot make %s in the graft: %w", p, err)
	}
	st, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !st.IsDir() {
		return fmt.Errorf("cannot graft below %s: it is no directory in the image", p)
	}
	return copyAttributes(from, to, b.owners)
}

// agent grafts the agent and its units.
func (b builder) agent(g Graft) error {
	at, err := b.parent(AgentPath)
	if err != nil {
		return err
	}
	if err := copyFile(g.Agent, at, 0o755); err != nil {
		return fmt.Errorf("cannot graft the agent: %w", err)
	}
	return b.files(unitDir, g.Units)
}

// files lays files below a directory over the image.
func (b builder) files(dir string, texts map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if err := b.file(filepath.Join(dir, name), texts[name]); err != nil {
			return err
		}
	}
	return nil
}

// HasGuard reports whether the tree has the guard's unit: systemd keeps a unit running across a soft reboot only if the
// new root has one of that name.
func HasGuard(tree string) bool { return rootfs.Exists(filepath.Join(tree, unitDir, pid1.GuardUnit)) }

func copyFile(from, to string, mode fs.FileMode) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// copyAttributes copies the mode, times and extended attributes of a file, and its owner, translated. The owner comes
// first, because chown(2) clears file capabilities and set-user-id bits.
func copyAttributes(from, to string, owners Owners) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return fmt.Errorf("cannot read the attributes of %s: %w", from, err)
	}
	if err := unix.Lchown(to, int(owners.uid(st.Uid)), int(owners.gid(st.Gid))); err != nil {
		return fmt.Errorf("cannot set the owner of %s: %w", to, err)
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return fmt.Errorf("cannot set the mode of %s: %w", to, err)
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("cannot set the time of %s: %w", to, err)
	}
	return nil
}

// copyXattrs copies extended attributes. One that the file system does not support, or that may not be set there, is
// left out: tmpfs has no user attributes before Linux 6.6, and no host stays in its old root for that.
func copyXattrs(from, to string) error {
	const maxXattr = 64 << 10 // bytes; XATTR_LIST_MAX and XATTR_SIZE_MAX
	list := make([]byte, maxXattr)
	n, err := unix.Llistxattr(from, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot list the extended attributes of %s: %w", from, err)
	}
	value := make([]byte, maxXattr)
	for _, name := range strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		size, err := unix.Lgetxattr(from, name, value)
		if err == nil {
			err = unix.Lsetxattr(to, name, value[:size], 0)
		}
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			continue // the merge of /etc leaves such an attribute out, too
		}
		if err != nil {
			return fmt.Errorf("cannot copy %s of %s: %w", name, from, err)
		}
	}
	return nil
}
