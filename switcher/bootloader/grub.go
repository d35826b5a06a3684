package bootloader

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
)

// grubScript makes the part of grub.cfg that is updatectl's. It has variables of its own in grubenv, so that what the
// operator sets with grub-set-default(8), grub-reboot(8) and GRUB_DEFAULT stays, and counts again without it.
//
//go:embed grub.sh
var grubScript []byte

// The files and variables of GRUB.
const (
	grubDir        = "/boot/grub"
	grubConfig     = grubDir + "/grub.cfg"
	grubEnv        = grubDir + "/grubenv"
	grubScriptFile = "/etc/grub.d/42_updatectl"
	grubBoot       = "/boot"
	grubMaker      = "/usr/sbin/grub-mkconfig"
	grubNew        = grubConfig + ".updatectl"

	onceVariable    = "updatectl_once"
	defaultVariable = "updatectl_default"
)

// The files beside the kernel of an entry, for the script.
const (
	titleFile   = "title"
	optionsFile = "options"
)

// The time that programs of the boot loader may take, on a slow disk with many systems to look for.
const (
	updateTime = 10 * time.Minute
	quickTime  = time.Minute
)

// grub is GRUB as Debian and Ubuntu install it.
type grub struct{ tree Tree }

func findGRUB(t Tree) (Loader, bool) {
	for _, p := range []string{grubConfig, "/etc/grub.d", grubMaker, "/usr/bin/grub-editenv"} {
		if _, err := os.Stat(t.Path(p)); err != nil {
			return nil, false
		}
	}
	return grub{t}, true
}

func (grub) Name() string         { return "GRUB" }
func (grub) Dir(id string) string { return dirOf(grubBoot, id) }

// writable are the file systems, by their number in statfs(2), on which GRUB can write to grubenv: it writes to blocks.
var writable = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.MSDOS_SUPER_MAGIC: "vfat", unix.XFS_SUPER_MAGIC: "xfs",
}

// CanStartOnce finds out whether GRUB can write to its grubenv when it starts: it has no drivers for that on LVM, RAID
// and encrypted disks, and would start the entry again and again.
func (g grub) CanStartOnce(context.Context) error {
	if isSecure() {
		return errSecure
	}
	dir := g.tree.Path(grubDir)
	var fsys unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Statfs(dir, &fsys), unix.Stat(dir, &st)); err != nil {
		return fmt.Errorf("cannot find out where %s lies: %w", grubDir, err)
	}
	if writable[int64(fsys.Type)] == "" {
		return fmt.Errorf("%w: GRUB cannot write to the file system that %s is on, so it cannot start a kernel only once; "+
			"a /boot of its own with ext4 can", ErrUnsupported, grubDir)
	}
	device := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	for _, kind := range []string{"dm", "md", "../md"} { // the last is that of a partition
		if _, err := os.Stat(device + "/" + kind); err == nil {
			return fmt.Errorf("%w: %s is on LVM, RAID or an encrypted disk, where GRUB cannot write, so it cannot start a "+
				"kernel only once; a /boot of its own on a plain partition can", ErrUnsupported, grubDir)
		}
	}
	return nil
}

func (g grub) Add(ctx context.Context, e Entry) error {
	dir := g.tree.Path(g.Dir(e.ID))
	options, err := written(append([]string{Word(e.ID)}, e.Options...))
	if err != nil {
		return err
	}
	err = errors.Join(
		durable.WriteFile(filepath.Join(dir, optionsFile), []byte(options+"\n"), 0o644),
		durable.WriteFile(filepath.Join(dir, titleFile), []byte(line(e.Title)+"\n"), 0o644), // last: the script looks for it
		durable.WriteFile(g.tree.Path(grubScriptFile), grubScript, 0o755),
	)
	if err != nil {
		return err
	}
	if err := g.update(ctx); err != nil {
		return err
	}
	inMenu, err := g.inMenu(e.ID)
	if err == nil && !inMenu {
		err = fmt.Errorf("grub-mkconfig has not put %s into %s: does something exclude %s?", name(e.ID), grubConfig,
			grubScriptFile)
	}
	return err
}

func (g grub) Remove(ctx context.Context, id string) error {
	dir := g.tree.Path(g.Dir(id))
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// The title first: without it, a menu that is made meanwhile does not have the entry.
	if err := os.Remove(filepath.Join(dir, titleFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if inMenu, err := g.inMenu(id); err != nil || !inMenu {
		return errors.Join(err, os.RemoveAll(dir))
	}
	// The initrd before the menu: a full /boot has no room for a new menu. Nothing starts this entry any more.
	if err := os.Remove(filepath.Join(dir, Initrd)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := g.update(ctx); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// inMenu reports whether the menu has an entry.
func (g grub) inMenu(id string) (bool, error) {
	text, err := os.ReadFile(g.tree.Path(grubConfig))
	return strings.Contains(string(text), "--id "+name(id)+" "), err
}

// update makes the menu beside the one that is there, and replaces that in one step: update-grub would write over it.
func (g grub) update(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, updateTime)
	defer cancel()
	if _, err := g.tree.Run(ctx, nil, "grub-mkconfig", "-o", grubNew); err != nil {
		return errors.Join(err, os.RemoveAll(g.tree.Path(grubNew)))
	}
	dir := g.tree.Path(grubDir)
	if err := durable.SyncFS(dir); err != nil {
		return err
	}
	return errors.Join(os.Rename(g.tree.Path(grubNew), g.tree.Path(grubConfig)), durable.SyncDir(dir))
}

func (g grub) StartOnce(ctx context.Context, id string) error { return g.set(ctx, onceVariable, id) }

func (g grub) SetDefault(ctx context.Context, id string) error {
	return g.set(ctx, defaultVariable, id)
}

// set sets a variable in grubenv to the name of an entry, and removes it for "".
func (g grub) set(ctx context.Context, variable, id string) error {
	ctx, cancel := context.WithTimeout(ctx, quickTime)
	defer cancel()
	args := []string{"grub-editenv", grubEnv, "unset", variable}
	if id != "" {
		if err := complete(g.tree, g.Dir(id)); err != nil {
			return err
		}
		args = []string{"grub-editenv", grubEnv, "set", variable + "=" + name(id)}
	}
	if _, err := g.tree.Run(ctx, nil, args...); err != nil {
		return err
	}
	return durable.SyncFS(g.tree.Path(grubDir))
}
