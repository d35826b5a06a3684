package imagekernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/bootloader"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// hostTree is a host root in a temporary directory, whose mkinitramfs writes a file.
type hostTree struct {
	dir    string
	ran    []string
	failed error // how mkinitramfs ends
}

func (h *hostTree) Path(p string) string { return filepath.Join(h.dir, p) }

func (h *hostTree) Run(_ context.Context, _ []string, args ...string) (string, error) {
	h.ran = append(h.ran, strings.Join(args, " "))
	if args[0] != "mkinitramfs" || h.failed != nil {
		return "", h.failed
	}
	return "", os.WriteFile(h.Path(args[2]), []byte("initrd of "+args[3]), 0o644)
}

// menu is a boot loader that only knows which entries there are.
type menu struct {
	bootloader.Loader
	host    *hostTree
	entries map[string]bootloader.Entry
}

func (m menu) Dir(id string) string { return "/boot/updatectl/" + id }

func (m menu) Add(_ context.Context, e bootloader.Entry) error {
	m.entries[e.ID] = e
	return nil
}

func (m menu) Remove(_ context.Context, id string) error {
	delete(m.entries, id)
	return os.RemoveAll(m.host.Path(m.Dir(id)))
}

// newPlace returns a host root with room and tools, and an image with a kernel.
func newPlace(t *testing.T) (*hostTree, menu, Place, rootfs.Dir) {
	t.Helper()
	h := &hostTree{dir: t.TempDir()}
	testtree.File(t, h.dir, "/usr/sbin/mkinitramfs", "")
	testtree.File(t, h.dir, "/usr/lib/modules/6.12-host/modules.dep", "")
	testtree.File(t, h.dir, "/boot/vmlinuz-6.12-host", "of the host")
	testtree.File(t, h.dir, "/var/tmp/.keep", "")
	m := menu{host: h, entries: map[string]bootloader.Entry{}}
	image := t.TempDir()
	for _, release := range []string{"6.9-image", "6.13-image"} {
		testtree.File(t, image, "/usr/lib/modules/"+release+"/modules.dep", "")
		testtree.File(t, image, "/usr/lib/modules/"+release+"/kernel/net.ko", "net of "+release)
		testtree.File(t, image, "/boot/vmlinuz-"+release, "kernel "+release)
	}
	testtree.File(t, image, "/usr/lib/modules/6.14-without-a-kernel/modules.dep", "")
	return h, m, Place{h, m}, rootfs.Dir(image)
}

// names returns what is in the host root, but for what was there before.
func (h *hostTree) names(t *testing.T) string {
	t.Helper()
	var found []string
	for _, dir := range []string{"/usr/lib/modules", "/boot", "/boot/updatectl"} {
		entries, err := os.ReadDir(h.Path(dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "updatectl" {
				found = append(found, e.Name())
			}
		}
	}
	return strings.Join(found, " ")
}

// TestInstall: the newest complete kernel of an image is installed beside those of the host, and removed again, with
// nothing of the host changed.
func TestInstall(t *testing.T) {
	h, m, p, image := newPlace(t)
	k, err := Find(image)
	if err != nil || k.Release != "6.13-image" {
		t.Fatalf("found %+v, %v", k, err)
	}
	before := h.names(t)
	k = k.With([]string{"panic=30"})
	for range 2 { // what is complete stays
		if err := p.Install(t.Context(), image, k, "An image", []string{"panic=30"}); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{
		m.Dir(k.ID) + "/vmlinuz":                    "kernel 6.13-image",
		m.Dir(k.ID) + "/initrd":                     "initrd of 6.13-image",
		"/usr/lib/modules/6.13-image/kernel/net.ko": "net of 6.13-image",
		"/usr/lib/modules/6.13-image/" + marker:     k.Build + "\n",
		"/boot/vmlinuz-6.12-host":                   "of the host",
		"/usr/lib/modules/6.12-host/modules.dep":    "",
	} {
		if text, err := os.ReadFile(h.Path(file)); err != nil || string(text) != want {
			t.Errorf("%s is %q, %v; want %q", file, text, err, want)
		}
	}
	if e := m.entries[k.ID]; e.Release != k.Release || e.Title != "An image" || len(e.Options) != 1 {
		t.Errorf("the entry is %+v", e)
	}
	for range 2 {
		if err := p.Remove(t.Context(), k, true); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.names(t); got != before || len(m.entries) > 0 {
		t.Errorf("%s is left, and entries %v; before it was %s", got, m.entries, before)
	}
}

// TestInstallFails: what cannot be completed is not in the menu, and the next attempt begins anew.
func TestInstallFails(t *testing.T) {
	h, m, p, image := newPlace(t)
	k, err := Find(image)
	if err != nil {
		t.Fatal(err)
	}
	h.failed = errors.New("no space left")
	if err := p.Install(t.Context(), image, k, "x", nil); !errors.Is(err, ErrInstall) || !errors.Is(err, h.failed) {
		t.Errorf("without an initrd: %v", err)
	}
	if len(m.entries) > 0 {
		t.Error("a kernel without an initrd is in the menu")
	}
	h.failed = nil
	testtree.File(t, h.dir, "/usr/lib/modules/"+unfinished+k.Release+"/half.ko", "")
	if err := p.Install(t.Context(), image, k, "x", nil); err != nil {
		t.Error(err)
	}
	if got := h.names(t); strings.Contains(got, unfinished) {
		t.Errorf("left is %s", got)
	}
}

// TestOthersModules: modules that updatectl did not make are neither used for another build nor removed.
func TestOthersModules(t *testing.T) {
	h, m, p, image := newPlace(t)
	k, err := Find(image)
	if err != nil {
		t.Fatal(err)
	}
	file := testtree.File(t, h.dir, "/usr/lib/modules/"+k.Release+"/modules.dep", "of a package")
	err = p.Install(t.Context(), image, k, "x", nil)
	if !errors.Is(err, ErrInstall) || !strings.Contains(err.Error(), "another build of this kernel") ||
		len(m.entries) > 0 {
		t.Errorf("over the modules of a package: %v, %v", err, m.entries)
	}
	if err := p.Remove(t.Context(), k, true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error("the modules of a package are gone:", err)
	}
}

// TestPackageCame: where a package has brought the same kernel meanwhile, its modules stay.
func TestPackageCame(t *testing.T) {
	h, _, p, image := newPlace(t)
	k, err := Find(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Install(t.Context(), image, k, "x", nil); err != nil {
		t.Fatal(err)
	}
	testtree.File(t, h.dir, "/boot/vmlinuz-"+k.Release, "of a package")
	if err := p.Remove(t.Context(), k, true); err != nil {
		t.Error(err)
	}
	modules := h.Path("/usr/lib/modules/" + k.Release)
	if _, err := os.Stat(modules + "/kernel/net.ko"); err != nil {
		t.Error("the modules of a package are gone:", err)
	}
	if _, err := os.Stat(modules + "/" + marker); err == nil {
		t.Error("the modules of a package are still marked as updatectl's")
	}
}

// TestFindNone: an image without a kernel that could be started says so.
func TestFindNone(t *testing.T) {
	image := t.TempDir()
	testtree.File(t, image, "/usr/lib/modules/6.14/modules.dep", "")
	if _, err := Find(rootfs.Dir(image)); !errors.Is(err, ErrNone) {
		t.Errorf("found %v", err)
	}
}

// TestCheckHost: a host root is ready if its updatectl has the timer that leads back, enabled at both ways a boot may
// end, and if it has a tool whose initrd does not wait for a person.
func TestCheckHost(t *testing.T) {
	const dir = "/usr/lib/systemd/system/"
	const mkinitramfs = "/usr/sbin/mkinitramfs"
	unit, both := []string{wayBack}, []string{"sysinit", "emergency"}
	for name, c := range map[string]struct {
		files, links []string
		masked       bool
		tool, reason string
	}{
		"ready":                {unit, both, false, mkinitramfs, ""},
		"dracut":               {unit, both, false, "/usr/bin/dracut", ""},
		"older updatectl":      {[]string{"updatectl-resume.service"}, nil, false, mkinitramfs, "is older"},
		"not in an emergency":  {unit, both[:1], false, mkinitramfs, "is older"},
		"only in an emergency": {unit, both[1:], false, mkinitramfs, "is older"},
		"links to nothing":     {nil, both, false, mkinitramfs, "is older"},
		"masked":               {unit, both, true, mkinitramfs, "is masked"},
		"mkinitcpio":           {unit, both, false, "/usr/bin/mkinitcpio", "wait for a person"},
	} {
		h := &hostTree{dir: t.TempDir()}
		testtree.File(t, h.dir, c.tool, "")
		for _, f := range c.files {
			testtree.File(t, h.dir, dir+f, "")
		}
		for _, target := range c.links {
			link(t, h.dir, dir+target+".target.wants/"+wayBack, "../"+wayBack)
		}
		if c.masked {
			link(t, h.dir, "/etc/systemd/system/"+wayBack, "/dev/null")
		}
		err := Place{h, menu{host: h}}.checkHost()
		if c.reason == "" && err != nil || c.reason != "" && (!errors.Is(err, ErrHost) ||
			!strings.Contains(err.Error(), c.reason)) {
			t.Errorf("%s: %v, want %q", name, err, c.reason)
		}
	}
}

// TestFits: what Install would refuse is found without a change of the host root.
func TestFits(t *testing.T) {
	h, _, p, image := newPlace(t)
	k, err := Find(image)
	if err != nil {
		t.Fatal(err)
	}
	testtree.File(t, h.dir, "/etc/systemd/system/"+wayBack, "")
	for _, target := range []string{"sysinit", "emergency"} {
		link(t, h.dir, "/etc/systemd/system/"+target+".target.wants/"+wayBack, "../"+wayBack)
	}
	before := h.names(t)
	if err := p.Fits(image, k); err != nil {
		t.Error(err)
	}
	if after := h.names(t); after != before || len(h.ran) > 0 {
		t.Errorf("%q ran, and the host root has %s, before %s", h.ran, after, before)
	}
	testtree.File(t, h.dir, "/usr/lib/modules/"+k.Release+"/modules.dep", "of a package")
	if err := p.Fits(image, k); !errors.Is(err, ErrInstall) || !strings.Contains(err.Error(), "another build") {
		t.Errorf("over the modules of a package: %v", err)
	}
}

// TestOlderImage: an image with an updatectl of its own needs one that knows of kernels of images.
func TestOlderImage(t *testing.T) {
	image := t.TempDir()
	if err := checkImage(rootfs.Dir(image)); err != nil {
		t.Errorf("without updatectl: %v", err)
	}
	for _, unit := range []string{"updatectl-guard.service", "updatectl-arrived.service"} {
		testtree.File(t, image, switcher.UnitDir+"/"+unit, "")
	}
	if err := checkImage(rootfs.Dir(image)); !errors.Is(err, ErrInstall) || !strings.Contains(err.Error(), "is older") {
		t.Errorf("with an older updatectl: %v", err)
	}
	testtree.File(t, image, switcher.UnitDir+"/"+wayBack, "")
	if err := checkImage(rootfs.Dir(image)); err != nil {
		t.Errorf("with this updatectl: %v", err)
	}
}

// TestRenew: the initrd is made again when the host has made its own anew, and stays if that fails.
func TestRenew(t *testing.T) {
	h, m, p, image := newPlace(t)
	k, err := Find(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Install(t.Context(), image, k, "x", nil); err != nil {
		t.Fatal(err)
	}
	ours, begun := h.Path(m.Dir(k.ID)+"/initrd"), time.Now()
	own := testtree.File(t, h.dir, "/boot/initrd.img-6.12-host", "")
	for name, c := range map[string]struct {
		age  time.Duration // of the host's own, beside that of the image's kernel
		fail error
		want string
	}{
		"older":          {-time.Hour, nil, "before"},
		"newer":          {time.Hour, nil, "initrd of " + k.Release},
		"newer, no room": {time.Hour, errors.New("no space left"), "before"},
	} {
		h.failed = c.fail
		if err := errors.Join(os.WriteFile(ours, []byte("before"), 0o644), os.Chtimes(ours, begun, begun),
			os.Chtimes(own, begun.Add(c.age), begun.Add(c.age))); err != nil {
			t.Fatal(err)
		}
		renewed, err := p.renew(t.Context(), k)
		if renewed != (c.want != "before") || !errors.Is(err, c.fail) {
			t.Errorf("%s: renewed %v, %v", name, renewed, err)
		}
		if text, err := os.ReadFile(ours); err != nil || string(text) != c.want {
			t.Errorf("%s: the initrd is %q, %v; want %q", name, text, err, c.want)
		}
	}
}

// link makes a symbolic link in a host root.
func link(t *testing.T, root, name, target string) {
	t.Helper()
	at := filepath.Join(root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink(target, at)); err != nil {
		t.Fatal(err)
	}
}
