package bootloader

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
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

// withGRUB returns a host root with GRUB, whose own kernel runs, and its boot loader.
func withGRUB(t *testing.T) (*tree, grub) {
	t.Helper()
	h := &tree{dir: t.TempDir()}
	for p, text := range map[string]string{
		grubConfig: "menuentry 'Debian' {}\nsource ${config_directory}/custom.cfg\n", grubEnv: "", grubEditor: "",
		procLine: "BOOT_IMAGE=/vmlinuz root=UUID=1 ro quiet\n",
	} {
		testtree.File(t, h.dir, p, text)
	}
	if _, ok := findGRUB(h); !ok {
		t.Fatal("GRUB is not found")
	}
	return h, grub{h, h.Path(procLine)}
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
// removed, and neither the host's menu nor what the operator has in custom.cfg changes.
func TestGRUB(t *testing.T) {
	h, g := withGRUB(t)
	before, mine := read(t, h.Path(grubConfig)), "set color_normal=white/black"
	testtree.File(t, h.dir, grubCustom, mine)
	e := Entry{ID: "c0ffee", Title: `An "image" of it's \own`, Release: "6.13", Options: []string{"panic=30", "a.b=c"}}
	if err := addTo(t, h, g, e); err != nil {
		t.Fatal(err)
	}
	menu := read(t, h.Path(grubMenu))
	for _, want := range []string{
		"menuentry 'An \"image\" of its own' ", "--unrestricted --id updatectl-c0ffee {",
		"linux $prefix/updatectl/c0ffee/vmlinuz root=UUID=1 ro quiet updatectl.kernel=c0ffee panic=30 a.b=c " +
			"${updatectl_words}\n",
		"initrd $prefix/updatectl/c0ffee/initrd\n",
		"if save_env updatectl_once; then\n\t\t\tset fallback=\"${default}\"\n\t\t\tset default=\"${updatectl_next}\"\n" +
			"\t\t\tset updatectl_words='" + strings.Join(onceWords, " ") + "'\n",
	} {
		if !strings.Contains(menu, want) {
			t.Errorf("the menu lacks %q:\n%s", want, menu)
		}
	}
	if got := read(t, h.Path(grubCustom)); got != mine+"\n"+grubLine+"\n" {
		t.Errorf("custom.cfg has\n%s", got)
	}
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
	for _, gone := range []string{grubMenu, g.Dir("c0ffee")} {
		if _, err := os.Stat(h.Path(gone)); err == nil {
			t.Errorf("%s is still there", gone)
		}
	}
	if got := read(t, h.Path(grubCustom)); got != mine+"\n" {
		t.Errorf("custom.cfg has\n%s", got)
	}
	if after := read(t, h.Path(grubConfig)); after != before {
		t.Errorf("the host's menu is now\n%s", after)
	}
}

// TestGRUBAlone: where the operator has no custom.cfg, none is left.
func TestGRUBAlone(t *testing.T) {
	h, g := withGRUB(t)
	for _, id := range []string{"a", "b"} {
		if err := addTo(t, h, g, Entry{ID: id, Title: id, Release: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Remove(t.Context(), "a"); err != nil || g.inMenu("a") == nil || g.inMenu("b") != nil {
		t.Errorf("after one of two was removed: %v, %v, %v", err, g.inMenu("a"), g.inMenu("b"))
	}
	err := g.Remove(t.Context(), "b")
	if _, serr := os.Stat(h.Path(grubCustom)); err != nil || !errors.Is(serr, os.ErrNotExist) {
		t.Errorf("custom.cfg: %v, %v", serr, err)
	}
}

// TestGRUBLeavesOut: an entry that is not in the menu is not started, and a parameter that GRUB would read as a command
// is refused.
func TestGRUBLeavesOut(t *testing.T) {
	h, g := withGRUB(t)
	for _, bad := range []string{"a;reboot", "a=$b", "a b", `a="b"`, "a\nb", "a}", "", "--", "#a", "a*", "[a]"} {
		err := addTo(t, h, g, Entry{ID: "c0ffee", Title: "x", Release: "1", Options: []string{bad}})
		if err == nil || !strings.Contains(err.Error(), "special to boot loaders") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := addTo(t, h, g, Entry{ID: "c0ffee", Title: "x", Release: "1"}); err != nil {
		t.Fatal(err)
	}
	testtree.File(t, h.dir, grubCustom, "# the operator has removed the line\n")
	err := g.StartOnce(t.Context(), "c0ffee")
	if err == nil || !strings.Contains(err.Error(), "not in the menu of GRUB") || len(h.ran) != 0 {
		t.Errorf("an entry that is not in the menu: %v; %q", err, h.ran)
	}
	testtree.File(t, h.dir, grubConfig, "menuentry 'Debian' {}\n")
	err = addTo(t, h, g, Entry{ID: "c0ffee", Title: "x", Release: "1"})
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "41_custom") {
		t.Errorf("a menu that does not read custom.cfg: %v", err)
	}
}

// TestHostWords: while the kernel of an image runs, the host's words are those that were kept.
func TestHostWords(t *testing.T) {
	h, g := withGRUB(t)
	words := func() (string, error) { return hostWords(h, g.line, grubDir, "/etc/kernel/cmdline") }
	testtree.File(t, h.dir, procLine, "root=UUID=2 "+Word("c0ffee")+" panic=30\n")
	if got, err := words(); err == nil || !strings.Contains(err.Error(), "not known while the kernel of an image runs") {
		t.Errorf("%q, %v", got, err)
	}
	for _, line := range []string{"root=UUID=1 ro", "root=UUID=2 " + Word("c0ffee")} {
		testtree.File(t, h.dir, procLine, line+"\n")
		if got, err := words(); err != nil || got != "root=UUID=1 ro" {
			t.Errorf("with %q: %q, %v", line, got, err)
		}
	}
	testtree.File(t, h.dir, "/etc/kernel/cmdline", "root=UUID=3\n")
	if got, err := words(); err != nil || got != "root=UUID=3" {
		t.Errorf("what the operator wrote: %q, %v", got, err)
	}
}

// TestFindGRUB: without one of its parts, GRUB is not taken for the boot loader of the host.
func TestFindGRUB(t *testing.T) {
	for _, missing := range []string{grubConfig, grubEditor} {
		h, _ := withGRUB(t)
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
	err := grub{tree: treeAt("/proc")}.CanStartOnce(t.Context())
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

// TestOnceWords: the last word of the one start is what the timer that leads back looks for.
func TestOnceWords(t *testing.T) {
	timer := read(t, "../../configs/units/updatectl-kernel.timer")
	last := onceWords[len(onceWords)-1]
	if !strings.Contains(timer, "\nConditionKernelCommandLine="+last+"\n") {
		t.Errorf("the timer does not look for %s", last)
	}
	if line := lasting("quiet " + last); line != "quiet" {
		t.Errorf("what is kept of the command line is %q", line)
	}
}
