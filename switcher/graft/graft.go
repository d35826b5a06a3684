// Package graft answers what this host needs and an image lacks: mount points, the agent with its units, and files.
// They are laid over the image before that runs. It promises that a graft is there completely or not at all, and that
// what it does not add looks as in the image.
package graft

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
	securejoin "github.com/cyphar/filepath-securejoin"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Needs is what this host needs and a read-only image lacks.
type Needs struct {
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
	Owners copies.Owners
	// Files are other files to lay over the image, by their absolute path.
	Files map[string]string
}

// AgentPath is where the agent is in a root.
const AgentPath = "/usr/bin/updatectl"

// Build writes the graft for the image tree at image to dir, which is replaced when the graft is complete. Directories
// that the image has get its attributes, because an overlay shows those of its upper layer. state lists the directories
// that will be mounted over: what is below them needs no mount point in the image.
func (n Needs) Build(image, dir string, state []string) (err error) {
	tmp := dir + ".new"
	if err := durable.RemoveAll(tmp); err != nil {
		return fmt.Errorf("cannot clear %s: %w", tmp, err)
	}
	defer func() {
		if err != nil { // it may take the last free space
			durable.RemoveAll(tmp)
		}
	}()
	b := builder{image: image, dir: tmp, owners: n.Owners}
	if err := b.mirror("/"); err != nil {
		return err
	}
	if err := b.private(); err != nil {
		return err
	}
	for _, p := range n.MountPoints {
		if err := b.mountPoint(p, state); err != nil {
			return err
		}
	}
	for _, p := range n.Stay {
		if err := b.stay(p); err != nil {
			return err
		}
	}
	if err := b.updaters(); err != nil {
		return err
	}
	if err := b.files("/", n.Files); err != nil {
		return err
	}
	if n.Agent != "" {
		if err := b.agent(n); err != nil {
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
	owners     copies.Owners
}

// private makes the directory that only root may enter, whatever the image has there: the host root is mounted in it.
func (b builder) private() error {
	st, err := os.Lstat(filepath.Join(b.image, switcher.PrivateDir))
	if err == nil && !st.IsDir() {
		return fmt.Errorf("cannot graft %s: what the image has there is no directory", switcher.PrivateDir)
	}
	at := filepath.Join(b.dir, switcher.PrivateDir)
	if err := os.Mkdir(at, 0o700); err != nil {
		return fmt.Errorf("cannot make %s in the graft: %w", switcher.PrivateDir, err)
	}
	return os.Chmod(at, 0o700) // whatever the umask
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
	name := filepath.Join(switcher.UnitDir, unit.UnitNamePathEscape(resolved)+".mount")
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
	return copies.Attributes(from, to, b.owners)
}

// agent grafts the agent and its units.
func (b builder) agent(n Needs) error {
	at, err := b.parent(AgentPath)
	if err != nil {
		return err
	}
	if err := copies.File(n.Agent, at, 0o755); err != nil {
		return fmt.Errorf("cannot graft the agent: %w", err)
	}
	return b.files(switcher.UnitDir, n.Units)
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

// FollowsSwitches reports whether the updatectl of a tree can follow a switch: systemd keeps the guard running across a
// soft reboot only if the new root has a unit of that name, and the arrival unit tells the lock server and hooks how
// the switch ended. A unit that is masked does not count.
func FollowsSwitches(tree string) bool {
	for _, unit := range []string{pid1.GuardUnit, pid1.ArrivedUnit} {
		st, err := os.Lstat(filepath.Join(tree, switcher.UnitDir, unit))
		if err != nil || !st.Mode().IsRegular() {
			return false
		}
	}
	return true
}
