package bootloader

import (
	"context"
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

// The files and variables of GRUB. The host's own menu, grub.cfg, is not changed: its script 41_custom has it read
// custom.cfg, which is the operator's, and one line in there has it read the entries of updatectl. The variables are of
// updatectl's own, so that what the operator sets with grub-set-default(8), grub-reboot(8) and GRUB_DEFAULT stays, and
// counts again without them.
const (
	grubDir    = "/boot/grub"
	grubConfig = grubDir + "/grub.cfg"
	grubCustom = grubDir + "/custom.cfg"
	grubMenu   = grubDir + "/updatectl.cfg"
	grubEnv    = grubDir + "/grubenv"
	grubEditor = "/usr/bin/grub-editenv"

	grubLine = "if [ -f $prefix/updatectl.cfg ]; then source $prefix/updatectl.cfg; fi # kernels of images, by updatectl"

	onceVariable    = "updatectl_once"
	defaultVariable = "updatectl_default"
)

// The files beside the kernel of an entry, from which the menu is made.
const (
	titleFile   = "title"
	optionsFile = "options"
)

// maxGRUB bounds files of GRUB, in bytes. grub.cfg of a host with many systems has some hundred KiB.
const maxGRUB = 8 << 20

// quickTime is how long programs of the boot loader may take.
const quickTime = time.Minute

// grubStart chooses what starts. A kernel is started once only if the variable could be removed before: otherwise it
// would start again and again. GRUB goes on to the fallback if it cannot read an entry. The words of the one start are
// for that start only. boot_once is set by grub-reboot(8), which goes before all of it.
const grubStart = `# The kernels of images. updatectl has written this file, and writes it again.
set updatectl_words=
if [ "${boot_once}" = true ]; then
	set updatectl_once=
	save_env updatectl_once
else
	if [ -z "${default}" ]; then
		set default=0
	fi
	if [ -n "${updatectl_default}" ]; then
		set fallback="${default}"
		set default="${updatectl_default}"
	fi
	if [ -n "${updatectl_once}" ]; then
		set updatectl_next="${updatectl_once}"
		set updatectl_once=
		if save_env updatectl_once; then
			set fallback="${default}"
			set default="${updatectl_next}"
			set updatectl_words='%s'
		fi
	fi
fi
export updatectl_words
`

// grubEntry is an entry of the menu: its title, its name, its directory, its options and its directory again.
const grubEntry = `menuentry '%s' --class gnu-linux --class os --unrestricted --id %s {
	load_video
	insmod gzio
	linux $prefix/%s/vmlinuz %s ${updatectl_words}
	initrd $prefix/%[3]s/initrd
}
`

// grub is GRUB as Debian and Ubuntu install it.
type grub struct {
	tree Tree
	line string // the file with the kernel command line
}

func findGRUB(t Tree) (Loader, bool) {
	for _, p := range []string{grubConfig, grubEditor} {
		if _, err := os.Stat(t.Path(p)); err != nil {
			return nil, false
		}
	}
	return grub{t, procLine}, true
}

func (grub) Name() string { return "GRUB" }

// Dir returns a directory beside grub.cfg: what $prefix leads to is on the same file system.
func (grub) Dir(id string) string { return dirOf(grubDir, id) }

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
	return g.readsCustom()
}

// readsCustom returns an [ErrUnsupported] if the host's menu does not read custom.cfg.
func (g grub) readsCustom() error {
	text, err := durable.ReadRegular(g.tree.Path(grubConfig), maxGRUB)
	if err == nil && !strings.Contains(string(text), "/custom.cfg") {
		err = fmt.Errorf("%w: %s does not read custom.cfg; make /etc/grub.d/41_custom executable and run update-grub",
			ErrUnsupported, grubConfig)
	}
	return err
}

func (g grub) Add(_ context.Context, e Entry) error {
	host, err := hostWords(g.tree, g.line, grubDir)
	if err != nil {
		return err
	}
	options, err := written(append(append(strings.Fields(host), Word(e.ID)), e.Options...))
	if err != nil {
		return err
	}
	dir := g.tree.Path(g.Dir(e.ID))
	err = errors.Join(
		durable.WriteFile(filepath.Join(dir, optionsFile), []byte(options+"\n"), 0o644),
		durable.WriteFile(filepath.Join(dir, titleFile), []byte(line(e.Title)+"\n"), 0o644), // last: it makes the entry
		g.readsCustom(),
	)
	if err != nil {
		return err
	}
	return g.writeMenu()
}

// writeMenu writes the entries that are complete, and has the host's menu read them. Without one, it removes both.
func (g grub) writeMenu() error {
	dirs, err := filepath.Glob(g.tree.Path(g.Dir("*")))
	if err != nil {
		return err
	}
	var entries strings.Builder
	for _, dir := range dirs {
		title, terr := durable.ReadRegular(filepath.Join(dir, titleFile), maxGRUB)
		options, oerr := durable.ReadRegular(filepath.Join(dir, optionsFile), maxGRUB)
		if terr != nil || oerr != nil {
			continue // it is being added or removed
		}
		id := filepath.Base(dir)
		fmt.Fprintf(&entries, grubEntry, strings.NewReplacer("'", "", "\\", "", "\n", "").Replace(string(title)), name(id),
			filepath.Join(place, id), strings.TrimSpace(string(options)))
	}
	menu, custom := g.tree.Path(grubMenu), g.tree.Path(grubCustom)
	if entries.Len() == 0 {
		err = errors.Join(setLine(custom, false), remove(menu))
	} else {
		text := fmt.Sprintf(grubStart, strings.Join(onceWords, " ")) + entries.String()
		err = errors.Join(durable.WriteFile(menu, []byte(text), 0o644), setLine(custom, true))
	}
	return errors.Join(err, durable.SyncFS(g.tree.Path(grubDir)))
}

// setLine has custom.cfg contain the line of updatectl, or not. The rest of it is the operator's. Without the line, an
// empty file is removed.
func setLine(custom string, is bool) error {
	text, err := durable.ReadRegular(custom, maxGRUB)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	has := strings.Contains(string(text), grubLine+"\n")
	rest := strings.ReplaceAll(string(text), grubLine+"\n", "")
	switch {
	case has == is:
		return nil
	case !is && rest == "":
		return remove(custom)
	case is && rest != "" && !strings.HasSuffix(rest, "\n"):
		rest += "\n"
	}
	if is {
		rest += grubLine + "\n"
	}
	return durable.WriteFile(custom, []byte(rest), 0o644)
}

// remove removes a file. It is no error if there is none.
func remove(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (g grub) Remove(_ context.Context, id string) error {
	dir := g.tree.Path(g.Dir(id))
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// The initrd before the menu: a full /boot has no room for another menu. Nothing starts this entry any more.
	err := errors.Join(remove(filepath.Join(dir, titleFile)), remove(filepath.Join(dir, Initrd)))
	if err == nil {
		err = g.writeMenu()
	}
	if err == nil {
		err = os.RemoveAll(dir)
	}
	return err
}

// inMenu returns an error unless the host's menu has an entry.
func (g grub) inMenu(id string) error {
	text, err := durable.ReadRegular(g.tree.Path(grubMenu), maxGRUB)
	custom, cerr := durable.ReadRegular(g.tree.Path(grubCustom), maxGRUB)
	if err = errors.Join(err, cerr, g.readsCustom()); err != nil {
		return err
	}
	if !strings.Contains(string(text), "--id "+name(id)+" ") || !strings.Contains(string(custom), grubLine+"\n") {
		return fmt.Errorf("%s is not in the menu of GRUB: %s or %s was changed", name(id), grubMenu, grubCustom)
	}
	return nil
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
		if err := errors.Join(complete(g.tree, g.Dir(id)), g.inMenu(id)); err != nil {
			return err
		}
		args = []string{"grub-editenv", grubEnv, "set", variable + "=" + name(id)}
	}
	if _, err := g.tree.Run(ctx, nil, args...); err != nil {
		return err
	}
	return durable.SyncFS(g.tree.Path(grubDir))
}
