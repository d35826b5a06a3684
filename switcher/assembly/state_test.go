package assembly

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// stateHost is a machine whose directory image is a mount of an image root, as that root's / is, and whose host root
// is mounted read-only. Its roots are in a directory that gc removes things from.
type stateHost struct {
	*testing.T
	image, host, roots string
	next               Next
}

// newStateHost makes such a machine, and a next root whose image has these names below the directory image.
func newStateHost(t *testing.T, names ...string) stateHost {
	t.Helper()
	h := stateHost{T: t, host: t.TempDir(), roots: testtree.Make(t, "sha256-1/etc/cert/key")}
	state := t.TempDir()
	var err error
	if h.image, err = os.MkdirTemp("/var/tmp", "image"); err != nil { // what is in /tmp can be made in every root
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(h.image) })
	for i, name := range names {
		names[i] = strings.TrimPrefix(h.image, "/") + "/" + name
	}
	h.next = testRoot(t, append(names, strings.TrimPrefix(state, "/")+"/host/", "tmp/")...)
	h.next.HostMount, h.next.Collected = filepath.Join(state, "host"), []string{h.roots}
	h.next.Persist = []string{state}
	return h
}

// mount mounts what the running machine has. It is called in a mount namespace of the test.
func (h stateHost) mount() {
	h.Helper()
	if err := errors.Join(
		os.MkdirAll(h.next.HostMount, 0o755),
		unix.Mount(switcher.SourcePrefix+"sha256-0", h.image, "tmpfs", 0, "mode=755"),
		unix.Mount(h.host, h.next.HostMount, "", unix.MS_BIND, ""),
		unix.Mount("", h.next.HostMount, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""),
	); err != nil {
		h.Error(err)
	}
}

// onHost returns where a path of the image is in the host root.
func (h stateHost) onHost(name string) string { return filepath.Join(h.host, h.image, name) }

// armed returns where a path of the image is in the armed root.
func (h stateHost) armed(name string) string { return filepath.Join(switcher.NextRoot, h.image, name) }

// TestArmKeepsWhatWasAddedLater: a state path that was configured when an image root ran already is the host root's
// directory. Where the host root has none, it gets one, with what the image has there.
func TestArmKeepsWhatWasAddedLater(t *testing.T) {
	for name, c := range map[string]struct {
		host, running, next string // what these have at the path; a file
		want                string // what the new root has there
	}{
		"host root has it":  {host: "data/file", running: "data/of-the-image", next: "data/of-the-next", want: "data/file"},
		"image has it":      {running: "data/sub/file", next: "data/of-the-next", want: "data/sub/file"},
		"next image has it": {next: "data/sub/file", want: "data/sub/file"},
		"nobody has it":     {},
	} {
		t.Run(name, func(t *testing.T) {
			files := []string{"data/"}
			if c.next != "" {
				files = []string{c.next}
			}
			h := newStateHost(t, files...)
			h.next.Persist = append(h.next.Persist, filepath.Join(h.image, "data"))
			if c.host != "" {
				testtree.File(t, filepath.Join(h.host, h.image), c.host, "")
			}
			inOwnNamespace(t, func() {
				h.mount()
				if c.running != "" {
					testtree.File(t, h.image, c.running, "")
				}
				if made, err := h.next.PlanState(); err != nil || (len(made) == 1) != (c.host == "") {
					t.Errorf("PlanState: %v, %v", made, err)
				}
				for range 2 { // again, as when the first switch failed
					if err := Arm(h.next); err != nil {
						t.Error(err)
						return
					}
				}
				if c.want != "" && !rootfs.Exists(h.armed(c.want)) {
					t.Errorf("the new root lacks %s", c.want)
				}
				if c.want != c.next && c.next != "" && rootfs.Exists(h.armed(c.next)) {
					t.Errorf("the new root has %s, which is not what was there", c.next)
				}
				if err := os.WriteFile(h.armed("data/written"), nil, 0o600); err != nil {
					t.Error(err)
				}
				if !rootfs.Exists(h.onHost("data/written")) {
					t.Error("what the new root writes is not on the host root")
				}
				if err := os.WriteFile(filepath.Join(h.next.HostMount, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
					t.Errorf("the host root can be written: %v", err)
				}
				if left, _ := filepath.Glob(h.onHost(".*")); len(left) != 0 {
					t.Errorf("left: %v", left)
				}
			})
		})
	}
}

// staleMount mounts a file system whose server is gone: every access ends with ENOTCONN.
func staleMount(t *testing.T, at string) {
	t.Helper()
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	options := "rootmode=40000,user_id=0,group_id=0,fd=" + strconv.Itoa(int(fuse.Fd()))
	if err := errors.Join(os.MkdirAll(at, 0o755), unix.Mount("stale", at, "fuse", 0, options), fuse.Close()); err != nil {
		t.Error(err)
	}
}

// TestArmRefusesUnsafeState: a state path whose data would be lost, or cannot be read just now, stops a new root, with
// the reason. A root that ran before does without a path that cannot be kept, but not without data that are there.
func TestArmRefusesUnsafeState(t *testing.T) {
	for name, c := range map[string]struct {
		make   func(h *stateHost, p string) error // what is at the path
		want   string
		always bool // also on the way back
	}{
		"link into /etc": {func(_ *stateHost, p string) error { return os.Symlink("/etc", p) },
			"it lies in /etc, and every root has its own; use [state] adopt", false},
		"link into a root": {func(h *stateHost, p string) error {
			return os.Symlink(filepath.Join(h.roots, "sha256-1/etc/cert"), p)
		}, "it lies in the directory of a root, which gc may remove", false},
		"mount of a root": {func(h *stateHost, p string) error {
			return errors.Join(os.Mkdir(p, 0o755),
				unix.Mount(filepath.Join(h.roots, "sha256-1/etc/cert"), p, "", unix.MS_BIND, ""))
		}, "it lies in the directory of a root, which gc may remove", false},
		"mount of a removed directory of a root": {func(h *stateHost, p string) error {
			cert := filepath.Join(h.roots, "sha256-1/etc/cert")
			return errors.Join(os.Mkdir(p, 0o755), unix.Mount(cert, p, "", unix.MS_BIND, ""), os.RemoveAll(cert))
		}, "it lies in the directory of a root, which gc may remove", false},
		"dangling link": {func(_ *stateHost, p string) error { return os.Symlink("/nowhere/home", p) },
			"it is a link to a directory that does not exist; mount or make that", false},
		"link of a user": {func(_ *stateHost, p string) error {
			return errors.Join(os.Symlink("/srv", p), os.Lchown(p, testtree.Attacker, 0))
		}, "is a link of user 4242, who can make it lead anywhere", false},
		"in a directory of a user": {func(h *stateHost, _ string) error { return os.Chown(h.image, testtree.Attacker, 0) },
			"everybody can write in /var/tmp, which it is in", false},
		"in a directory of a user on the host root": {func(h *stateHost, _ string) error {
			return os.Chown(filepath.Dir(h.onHost("data")), testtree.Attacker, 0)
		}, "belongs to user 4242, who can put a link in its place", false},
		"file": {func(_ *stateHost, p string) error { return os.WriteFile(p, nil, 0o600) }, "it is no directory", false},
		"link on the host root": {func(h *stateHost, p string) error {
			return os.Symlink("/srv", h.onHost(filepath.Base(p)))
		}, "on the host root, ", false},
		"host root not mounted": {func(h *stateHost, _ string) error { return unix.Unmount(h.next.HostMount, 0) },
			"the host root, where it would be, is not mounted at ", false},
		"below fstab": {func(h *stateHost, p string) error {
			h.next.Fstab = []string{filepath.Dir(p)}
			return unix.Unmount(h.image, 0)
		}, "of fstab, which is not mounted", false},
		"loop of links": {func(_ *stateHost, p string) error { return os.Symlink(p, p) },
			"too many levels of symbolic links", true},
		"server gone": {func(h *stateHost, p string) error { staleMount(h.T, p); return nil },
			"transport endpoint is not connected", true},
		"gone since": {func(h *stateHost, p string) error { h.next.Present = []string{p}; return nil },
			"it was there when the switch was announced, and is not any more", true},
		"unmounted since": {func(h *stateHost, p string) error {
			h.next.Present = []string{p}
			return os.Mkdir(p, 0o755) // in the image, below what was mounted there
		}, "it was there when the switch was announced, and is not any more", true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newStateHost(t, "data/")
			p := filepath.Join(h.image, "data")
			h.next.Persist = append(h.next.Persist, p)
			if err := os.MkdirAll(filepath.Join(h.host, h.image), 0o755); err != nil {
				t.Fatal(err)
			}
			inOwnNamespace(t, func() {
				h.mount()
				if err := c.make(&h, p); err != nil {
					t.Error(err)
				}
				begin := p + " cannot be kept: "
				if c.always {
					begin = "cannot carry " + p + " over: "
				}
				err := Arm(h.next)
				if errors.Is(err, ErrState) == c.always || !strings.HasPrefix(err.Error(), begin) ||
					!strings.Contains(err.Error(), c.want) {
					t.Errorf("Arm: %v; want %q and %q", err, begin, c.want)
				}
				if id, err := Armed(); err != nil || id != "" {
					t.Errorf("armed: %q, %v", id, err)
				}
				if st, err := os.Lstat(h.onHost("data")); err == nil && st.IsDir() {
					t.Error("a directory was made on the host root")
				}
				h.next.Return = true
				switch err := Arm(h.next); {
				case c.always && (err == nil || !strings.Contains(err.Error(), c.want)):
					t.Errorf("Arm on the way back: %v; want %q", err, c.want)
				case !c.always && err != nil:
					t.Errorf("Arm on the way back: %v", err)
				case err == nil && rootfs.Exists(h.armed("data/key")):
					t.Error("the data of a root were carried over")
				}
			})
		})
	}
}

// TestArmDropsMountsOfRoots: what is mounted below the state from the directory of a root stays behind, although fstab
// names it.
func TestArmDropsMountsOfRoots(t *testing.T) {
	h := newStateHost(t)
	state := h.next.Persist[0]
	inOwnNamespace(t, func() {
		h.mount()
		cert := filepath.Join(h.roots, "sha256-1/etc/cert")
		for name, from := range map[string]string{"cert": cert, "kept": t.TempDir()} {
			at := filepath.Join(state, name)
			h.next.Fstab = append(h.next.Fstab, at)
			if err := errors.Join(os.Mkdir(at, 0o755), unix.Mount(from, at, "", unix.MS_BIND, ""),
				os.WriteFile(filepath.Join(at, "file"), nil, 0o600)); err != nil {
				t.Error(err)
			}
		}
		if err := Arm(h.next); err != nil {
			t.Error(err)
		}
		if rootfs.Exists(filepath.Join(switcher.NextRoot, state, "cert/file")) {
			t.Error("a mount of a root's directory was carried over")
		}
		if !rootfs.Exists(filepath.Join(switcher.NextRoot, state, "kept/file")) {
			t.Error("a mount below the state was not carried over")
		}
	})
}

// TestReturnWithoutMountPoint: a root that ran before has no mount point for a path that was configured since. It comes
// back without that path.
func TestReturnWithoutMountPoint(t *testing.T) {
	h := newStateHost(t)
	h.next.Persist = append(h.next.Persist, filepath.Join(h.image, "data"))
	testtree.File(t, h.onHost("data"), "file", "")
	inOwnNamespace(t, func() {
		h.mount()
		h.next.Return = true
		if err := Arm(h.next); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(h.armed("data")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the path is there: %v", err)
		}
	})
}

// TestArmHostFollowsLinksWithin: an absolute link of the host root leads into the host root, not into the running root.
func TestArmHostFollowsLinksWithin(t *testing.T) {
	data := testtree.Make(t, "file")
	link := filepath.Join(t.TempDir(), "data") // in the host root: a link to a directory that the running root has, too
	target := t.TempDir()
	host := testtree.Make(t, "dev/", "proc/", "sys/", "run/", "usr/lib/os-release", "usr/lib/systemd/systemd")
	if err := errors.Join(os.Mkdir(link, 0o755), os.MkdirAll(filepath.Join(host, target), 0o755),
		os.MkdirAll(filepath.Join(host, filepath.Dir(link)), 0o755), os.Symlink(target, filepath.Join(host, link)),
	); err != nil {
		t.Fatal(err)
	}
	inOwnNamespace(t, func() {
		mounted := t.TempDir()
		if err := errors.Join(unix.Mount(data, link, "", unix.MS_BIND, ""),
			unix.Mount(host, mounted, "", unix.MS_BIND, "")); err != nil {
			t.Error(err)
		}
		n := Next{ID: switcher.HostRoot, HostMount: mounted, Persist: []string{link}}
		if err := Arm(n); err != nil {
			t.Error(err)
		}
		if !rootfs.Exists(filepath.Join(switcher.NextRoot, target, "file")) {
			t.Error("the state is not in the host root")
		}
		if rootfs.Exists(filepath.Join(target, "file")) {
			t.Error("the state was mounted over a directory of the running root")
		}
	})
}
