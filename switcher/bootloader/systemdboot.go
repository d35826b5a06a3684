package bootloader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/updatectl/updatectl/durable"
)

// The variables of the boot loader interface (https://systemd.io/BOOT_LOADER_INTERFACE/), in efivarfs.
const (
	efiVars     = "/sys/firmware/efi/efivars"
	loaderGUID  = "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	loaderInfo  = "LoaderInfo"
	defaultItem = "LoaderEntryDefault"
)

// efiAttributes is the size of what comes before the value of a variable in efivarfs, in bytes.
const efiAttributes = 4

// isSystemdBoot reports whether systemd-boot started this machine.
func isSystemdBoot() bool { return strings.HasPrefix(efiVariable(efiVars, loaderInfo), "systemd-boot") }

// efiVariable returns a text in a variable of the boot loader interface, "" if there is none.
func efiVariable(dir, variable string) string {
	const longest = 4096
	raw, err := durable.ReadRegular(filepath.Join(dir, variable+loaderGUID), longest)
	if err != nil || len(raw) < efiAttributes {
		return ""
	}
	var units []uint16
	for pair := raw[efiAttributes:]; len(pair) >= 2; pair = pair[2:] {
		if u := binary.LittleEndian.Uint16(pair); u != 0 {
			units = append(units, u)
		}
	}
	return string(utf16.Decode(units))
}

// systemdBoot is systemd-boot. Its entries are written here and not by kernel-install(8): that would give them the sort
// key of the distribution, and the newest version would be started by default before it is proven.
type systemdBoot struct {
	tree Tree
	boot string // where entries and kernels lie, in the host root
}

func findSystemdBoot(ctx context.Context, t Tree) (Loader, error) {
	ctx, cancel := context.WithTimeout(ctx, quickTime)
	defer cancel()
	out, err := t.Run(ctx, nil, "bootctl", "--print-boot-path")
	boot := strings.TrimSpace(out)
	if err != nil || !filepath.IsAbs(boot) || strings.Contains(boot, "\n") {
		return nil, fmt.Errorf("%w: systemd-boot started this host, but `bootctl --print-boot-path` does not say from "+
			"where: %w", ErrUnsupported, errors.Join(err, fmt.Errorf("it says %q", boot)))
	}
	return systemdBoot{t, boot}, nil
}

func (systemdBoot) Name() string           { return "systemd-boot" }
func (s systemdBoot) Dir(id string) string { return dirOf(s.boot, id) }

func (systemdBoot) CanStartOnce(context.Context) error {
	if isSecure() {
		return errSecure
	}
	return nil
}

// sorted begins the names of entries: without a sort key, systemd-boot shows those last whose names sort first, and
// starts the first that it shows if nobody has chosen a default.
const sorted = "00-"

// item returns the name of an entry's file, "" for ""; once is whether it is the one with the words of the one start.
func item(id string, once bool) string {
	switch {
	case id == "":
		return ""
	case once:
		return sorted + name(id) + "-once.conf"
	}
	return sorted + name(id) + ".conf"
}

func (s systemdBoot) file(id string, once bool) string {
	return filepath.Join(s.boot, "loader/entries", item(id, once))
}

func (s systemdBoot) Add(_ context.Context, e Entry) error {
	host, err := hostWords(s.tree, procLine, s.boot, "/etc/kernel/cmdline", "/usr/lib/kernel/cmdline")
	if err != nil {
		return err
	}
	options, err := written(append([]string{Word(e.ID)}, e.Options...))
	if err != nil {
		return err
	}
	options = strings.TrimSpace(host + " " + options)
	if err := os.MkdirAll(s.tree.Path(filepath.Join(s.boot, "loader/entries")), 0o755); err != nil {
		return err
	}
	once := options + " " + strings.Join(onceWords, " ")
	return errors.Join(durable.WriteFile(s.tree.Path(s.file(e.ID, true)), s.text(e, once), 0o644),
		durable.WriteFile(s.tree.Path(s.file(e.ID, false)), s.text(e, options), 0o644))
}

// text returns an entry, see the Boot Loader Specification, type 1.
func (systemdBoot) text(e Entry, options string) []byte {
	var b bytes.Buffer
	in := func(file string) string { return filepath.Join("/", place, e.ID, file) }
	fmt.Fprintf(&b, "title      %s\nversion    %s\n", line(e.Title), e.Release)
	fmt.Fprintf(&b, "linux      %s\ninitrd     %s\n", in(Kernel), in(Initrd))
	fmt.Fprintf(&b, "options    %s\n", options)
	return b.Bytes()
}

// procLine has the command line of the kernel that runs.
const procLine = "/proc/cmdline"

// hostWords returns what the host has on its kernel command line, by the first of these files that is there, or else as
// it is now. What it is with the host's own kernel is kept below a directory for when that of an image runs.
func hostWords(t Tree, now, dir string, files ...string) (string, error) {
	const longest = 64 << 10
	running, err := durable.ReadRegular(now, longest)
	if err != nil {
		return "", err
	}
	kept := t.Path(filepath.Join(dir, place, "options-of-host"))
	ours := strings.Contains(" "+string(running), " "+Word(""))
	for i, p := range files {
		files[i] = t.Path(p)
	}
	if ours {
		files = append(files, kept)
	}
	for _, p := range files {
		text, err := durable.ReadRegular(p, longest)
		if err == nil {
			return strings.Join(strings.Fields(string(text)), " "), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	if ours {
		return "", errors.New("the command line of the host is not known while the kernel of an image runs: " +
			"run `updatectl rollback host` and reboot first")
	}
	words := lasting(string(running))
	return words, errors.Join(os.MkdirAll(filepath.Dir(kept), 0o755), durable.WriteFile(kept, []byte(words+"\n"), 0o644))
}

// onceOnly begins or is a parameter that a boot loader adds, or that somebody gives for one start.
var onceOnly = []string{"initrd=", "BOOT_IMAGE=", "updatectl.", "systemd.unit=", "single", "emergency", "rescue"}

// lasting returns a command line without what is only for this start.
func lasting(line string) string {
	words := slices.DeleteFunc(strings.Fields(line), func(w string) bool {
		return slices.ContainsFunc(onceOnly, func(o string) bool {
			return w == o || !slices.Contains([]string{"single", "emergency", "rescue"}, o) && strings.HasPrefix(w, o)
		})
	})
	return strings.Join(words, " ")
}

func (s systemdBoot) Remove(_ context.Context, id string) error {
	for _, once := range []bool{true, false} {
		if err := os.Remove(s.tree.Path(s.file(id, once))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	dir := s.tree.Path(s.Dir(id))
	return errors.Join(os.RemoveAll(dir), durable.SyncFS(s.tree.Path(s.boot)))
}

func (s systemdBoot) StartOnce(ctx context.Context, id string) error {
	if id != "" {
		if err := complete(s.tree, s.Dir(id)); err != nil {
			return err
		}
	}
	return s.bootctl(ctx, "set-oneshot", item(id, true))
}

// SetDefault keeps the default of the operator in a file, and sets that again for "".
func (s systemdBoot) SetDefault(ctx context.Context, id string) error {
	dir := s.tree.Path(filepath.Join(s.boot, place))
	kept := filepath.Join(dir, "default-of-host")
	now := efiVariable(efiVars, defaultItem)
	if id == "" {
		if now != "" && !strings.HasPrefix(now, sorted+prefix) { // it is the operator's
			return nil
		}
		const longest = 4096
		was, err := durable.ReadRegular(kept, longest)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return s.bootctl(ctx, "set-default", strings.TrimSpace(string(was)))
	}
	if err := complete(s.tree, s.Dir(id)); err != nil {
		return err
	}
	if !strings.HasPrefix(now, sorted+prefix) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := durable.WriteFile(kept, []byte(now+"\n"), 0o644); err != nil {
			return err
		}
	}
	return s.bootctl(ctx, "set-default", item(id, false))
}

func (s systemdBoot) bootctl(ctx context.Context, verb, entry string) error {
	ctx, cancel := context.WithTimeout(ctx, quickTime)
	defer cancel()
	_, err := s.tree.Run(ctx, nil, "bootctl", verb, entry)
	return err
}
