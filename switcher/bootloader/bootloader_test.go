package bootloader

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// tree is a host root in a temporary directory, whose programs note that they ran.
type tree struct {
	dir  string
	ran  []string
	does func(args []string) (string, error)
}

func (t *tree) Path(p string) string { return filepath.Join(t.dir, p) }

func (t *tree) Run(_ context.Context, _ []string, args ...string) (string, error) {
	t.ran = append(t.ran, strings.Join(args, " "))
	if t.does == nil {
		return "", nil
	}
	return t.does(args)
}

// withGRUB returns a host root with GRUB, whose grub-mkconfig runs the script of updatectl.
func withGRUB(t *testing.T) *tree {
	t.Helper()
	h := &tree{dir: t.TempDir()}
	for _, p := range []string{
		grubConfig, grubEnv, "/etc/grub.d/README", grubMaker, "/usr/bin/grub-editenv",
	} {
		testtree.File(t, h.dir, p, "")
	}
	h.does = func(args []string) (string, error) {
		if args[0] != "grub-mkconfig" {
			return "", nil
		}
		menu, err := h.menu(t)
		return "", errors.Join(err, os.WriteFile(h.Path(args[2]), []byte(menu), 0o644))
	}
	return h
}

// menu runs the script of updatectl as grub-mkconfig does, with GRUB's own functions replaced by simple ones.
func (t *tree) menu(test *testing.T) (string, error) {
	script, err := os.ReadFile(t.Path(grubScriptFile))
	if err != nil {
		return "", err
	}
	testtree.File(test, t.dir, "/lib/grub-mkconfig_lib", `make_system_path_relative_to_its_root() { echo "/relative$1"; }
prepare_grub_to_access_device() { echo "search --set=root $1"; }
grub_add_tab() { sed 's/^/	/'; }
uses_abstraction() { return 1; }
`)
	cmd := exec.Command("/bin/sh", "-c", strings.ReplaceAll(string(script), "/boot/updatectl", t.Path("/boot/updatectl")))
	cmd.Env = append(os.Environ(), "pkgdatadir="+t.Path("/lib"), "GRUB_DEVICE=/dev/vda2", "GRUB_DEVICE_BOOT=/dev/vda1",
		"GRUB_CMDLINE_LINUX=console=ttyS0", "GRUB_CMDLINE_LINUX_DEFAULT=quiet")
	out, err := cmd.CombinedOutput()
	return strings.ReplaceAll(string(out), t.dir, ""), err
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// addTo adds an entry with its files.
func addTo(t *testing.T, h *tree, l Loader, e Entry) error {
	t.Helper()
	for _, f := range []string{Kernel, Initrd} {
		testtree.File(t, h.dir, filepath.Join(l.Dir(e.ID), f), "x")
	}
	return l.Add(t.Context(), e)
}

// TestGRUB: an entry has the host's words and those of the image, is in the menu from when it was added until it is
// removed, and only variables of updatectl are set.
func TestGRUB(t *testing.T) {
	h := withGRUB(t)
	g, ok := findGRUB(h)
	if !ok {
		t.Fatal("GRUB is not found")
	}
	e := Entry{ID: "c0ffee", Title: `An "image" of it's $(own)`, Release: "6.13", Options: []string{"panic=30", "a.b=c"}}
	if err := addTo(t, h, g, e); err != nil {
		t.Fatal(err)
	}
	menu := read(t, h.Path(grubConfig))
	for _, want := range []string{
		"menuentry 'An image of its $(own)' ", "--unrestricted --id updatectl-c0ffee {", "search --set=root /dev/vda1",
		"linux /relative/boot/updatectl/c0ffee/vmlinuz root=/dev/vda2 ro  console=ttyS0 quiet " +
			"updatectl.kernel=c0ffee panic=30 a.b=c ${updatectl_words}\n",
		"initrd /relative/boot/updatectl/c0ffee/initrd\n",
		"if save_env updatectl_once; then\n\t\t\tset fallback=\"${default}\"\n\t\t\tset default=\"${updatectl_next}\"\n" +
			"\t\t\tset updatectl_words='" + strings.Join(onceWords, " ") + "'\n",
	} {
		if !strings.Contains(menu, want) {
			t.Errorf("the menu lacks %q:\n%s", want, menu)
		}
	}
	h.ran = nil
	for _, err := range []error{
		g.StartOnce(t.Context(), "c0ffee"), g.StartOnce(t.Context(), ""), g.SetDefault(t.Context(), "c0ffee"),
		g.SetDefault(t.Context(), ""),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"grub-editenv /boot/grub/grubenv set updatectl_once=updatectl-c0ffee",
		"grub-editenv /boot/grub/grubenv unset updatectl_once",
		"grub-editenv /boot/grub/grubenv set updatectl_default=updatectl-c0ffee",
		"grub-editenv /boot/grub/grubenv unset updatectl_default",
	}
	if !slices.Equal(h.ran, want) {
		t.Errorf("GRUB was told %q", h.ran)
	}
	for range 2 { // the second time, nothing is there
		if err := g.Remove(t.Context(), "c0ffee"); err != nil {
			t.Error(err)
		}
	}
	if menu := read(t, h.Path(grubConfig)); menu != "" {
		t.Errorf("without a kernel, the menu has\n%s", menu)
	}
	if _, err := os.Stat(h.Path(g.Dir("c0ffee"))); err == nil {
		t.Error("the files of a kernel that was removed are still there")
	}
}

// TestGRUBLeavesOut: an entry that does not reach the menu is an error, and so is a parameter that GRUB would read as a
// command.
func TestGRUBLeavesOut(t *testing.T) {
	h := withGRUB(t)
	g, _ := findGRUB(h)
	for _, bad := range []string{"a;reboot", "a=$b", "a b", `a="b"`, "a\nb", "a}", ""} {
		err := addTo(t, h, g, Entry{ID: "c0ffee", Title: "x", Release: "1", Options: []string{bad}})
		if err == nil || !strings.Contains(err.Error(), "take for their own") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	h.does = func([]string) (string, error) { // the menu lacks the entry
		return "", os.WriteFile(h.Path(grubNew), nil, 0o644)
	}
	err := addTo(t, h, g, Entry{ID: "c0ffee", Title: "x", Release: "1"})
	if err == nil || !strings.Contains(err.Error(), "has not put updatectl-c0ffee") {
		t.Errorf("an entry that is not in the menu: %v", err)
	}
}

// TestFindGRUB: without one of its parts, GRUB is not taken for the boot loader of the host.
func TestFindGRUB(t *testing.T) {
	for _, missing := range []string{grubConfig, grubMaker, "/usr/bin/grub-editenv", "/etc/grub.d"} {
		h := withGRUB(t)
		if err := os.RemoveAll(h.Path(missing)); err != nil {
			t.Fatal(err)
		}
		if _, ok := findGRUB(h); ok {
			t.Errorf("without %s, GRUB is found", missing)
		}
	}
}

// TestGRUBStartsOnce: on a file system to which GRUB cannot write, a kernel cannot be started once.
func TestGRUBStartsOnce(t *testing.T) {
	err := grub{treeAt("/proc")}.CanStartOnce(t.Context())
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "cannot write to the file system") {
		t.Errorf("on procfs: %v", err)
	}
}

// treeAt is a tree whose every path is one directory.
type treeAt string

func (d treeAt) Path(string) string { return string(d) }
func (treeAt) Run(context.Context, []string, ...string) (string, error) {
	return "", errors.New("nothing can be run")
}

// TestSystemdBootEntry: the entry has no sort key and a name that sorts first, so that it is shown last.
func TestSystemdBootEntry(t *testing.T) {
	s := systemdBoot{boot: "/efi"}
	e := Entry{ID: "c0ffee", Title: "An image", Release: "6.13"}
	want := "title      An image\nversion    6.13\n" +
		"linux      /updatectl/c0ffee/vmlinuz\ninitrd     /updatectl/c0ffee/initrd\noptions    root=x panic=30\n"
	if got := string(s.text(e, "root=x panic=30")); got != want {
		t.Errorf("the entry is\n%s", got)
	}
	if got := s.file("c0ffee", true); got != "/efi/loader/entries/00-updatectl-c0ffee-once.conf" {
		t.Errorf("the entry is in %s", got)
	}
}

// TestLasting: what a boot loader adds, and what is for one start, are not taken for the words of the host.
func TestLasting(t *testing.T) {
	const line = "BOOT_IMAGE=/boot/vmlinuz initrd=\\x\\initrd root=UUID=1 ro  quiet updatectl.resume=0 single " +
		"systemd.unit=rescue.target systemd.show_status=1 rescue singleton\n"
	if got := lasting(line); got != "root=UUID=1 ro quiet systemd.show_status=1 singleton" {
		t.Errorf("the host's words are %q", got)
	}
}

// TestEFIVariable: texts are UTF-16 behind four bytes of attributes; anything else is none.
func TestEFIVariable(t *testing.T) {
	dir := t.TempDir()
	raw := []byte{6, 0, 0, 0}
	for _, u := range utf16.Encode([]rune("systemd-boot 257\x00")) {
		raw = binary.LittleEndian.AppendUint16(raw, u)
	}
	testtree.File(t, dir, loaderInfo+loaderGUID, string(raw))
	testtree.File(t, dir, "Short"+loaderGUID, "\x06")
	for variable, want := range map[string]string{loaderInfo: "systemd-boot 257", "Short": "", "None": ""} {
		if got := efiVariable(dir, variable); got != want {
			t.Errorf("%s is %q, want %q", variable, got, want)
		}
	}
}

// TestOnceWords: both boot loaders add the same words to the one start, and the last is what the timer that leads back
// looks for.
func TestOnceWords(t *testing.T) {
	words := "set updatectl_words='" + strings.Join(onceWords, " ") + "'"
	if !strings.Contains(string(grubScript), words) {
		t.Errorf("the script of GRUB lacks %s", words)
	}
	timer := read(t, "../../configs/units/updatectl-kernel.timer")
	last := onceWords[len(onceWords)-1]
	if !strings.Contains(timer, "\nConditionKernelCommandLine="+last+"\n") {
		t.Errorf("the timer does not look for %s", last)
	}
	if line := lasting("quiet " + last); line != "quiet" {
		t.Errorf("what is kept of the command line is %q", line)
	}
}
