package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/layer"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/verify"
)

func TestStageMakesARootTheKernelMounts(t *testing.T) {
	b := newBuilder(t)
	big := strings.Repeat("a large file ", 300_000)
	b.layer(ocispec.MediaTypeImageLayerGzip, packLayer(append(bootable(),
		reg("etc/old", "gone later"), reg("same", "twice"), reg("empty", ""), hard("twin", "same"))...))
	b.layer(ocispec.MediaTypeImageLayerZstd, packLayer(
		reg("etc/.wh.old", ""), reg("var/big", big), reg("copy", "twice"),
		reg("usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so", "lib"),
		reg("usr/lib/modules/6.12.1-test/modules.dep", ""), folder("usr/lib/modules/6.11.0-left-behind"),
		program("usr/bin/updatectl", "agent"),
		reg("usr/lib/systemd/system/updatectl-arm.service", "unit"),
		reg("usr/lib/systemd/system/multi-user.target.wants/updatectl-confirm.service", "unit"), folder("proc"),
		folder("run")))
	b.layer(ocispec.MediaTypeImageLayer, packLayer(sym("sbin", "usr/sbin")))
	b.config.Config.Labels = map[string]string{ocispec.AnnotationVersion: "7.3.1", labelKernelMin: "6.1"}

	st := newStore(t)
	img, err := b.open(b.manifest())
	if err != nil {
		t.Fatal(err)
	}
	var events []Event
	root, err := Stage(context.Background(), st, b.source(), img, "registry.example.org/os:stable",
		func(e Event) { events = append(events, e) })
	if err != nil {
		t.Fatal(err)
	}
	last := events[len(events)-1]
	if last.Phase != PhaseDone || last.Done != last.Total || last.Layer != 3 || last.Layers != 3 {
		t.Errorf("last event: %+v", last)
	}

	i := root.Info
	i.RootDigest, i.Sum, i.VerifiedAt, i.StagedAt, i.Vouchers = [32]byte{}, "", i.VerifiedAt.UTC().Truncate(1e18),
		i.StagedAt.Truncate(1e18), nil
	want := store.Info{
		Schema: store.Schema, Digest: img.Verified.Digest(), Reference: "registry.example.org/os:stable",
		Version: "7.3.1", KernelMin: "6.1",
		Platform: store.Platform{OS: "linux", Architecture: "amd64"},
		OS:       store.OS{ID: "testos", VersionID: "7", PrettyName: "Test OS 7", ImageVersion: "7.3"},
		Systemd:  257, Init: "/usr/lib/systemd/systemd", Kernels: []string{"6.12.1-test"}, HasAgent: true,
		Missing:    []string{"dev", "home", "root", "srv", "sys", "tmp"},
		VerifiedAt: i.VerifiedAt, StagedAt: i.StagedAt, Sum: i.Sum,
		// "twice" and "unit" are stored once, "gone later" not at all
		Files: 30, Size: i.Size, NewBytes: i.Size - 5 - 4,
	}
	if !reflect.DeepEqual(i, want) {
		t.Errorf("info\n%+v\nwant\n%+v", i, want)
	}
	if len(root.Info.Vouchers) != 1 || root.Info.Vouchers[0].Signer != "test" {
		t.Errorf("vouchers: %+v", root.Info.Vouchers)
	}

	mnt := mountRoot(t, st, root)
	for path, content := range map[string]string{
		"same": "twice", "twin": "twice", "copy": "twice", "empty": "", "var/big": big, "etc/os-release": osRelease,
	} {
		if got := string(must(os.ReadFile(filepath.Join(mnt, path)))); got != content {
			t.Errorf("%s: got %.40q (%d bytes)", path, got, len(got))
		}
	}
	if _, err := os.Lstat(filepath.Join(mnt, "etc/old")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("whited out file: %v", err)
	}
	tree := scan(t, mnt)
	if tree["twin"].FirstSibling != "same" || tree["same"].Nlink != 2 || tree["copy"].Nlink != 1 {
		t.Errorf("hard links: %+v %+v %+v", tree["same"], tree["twin"], tree["copy"])
	}

	again, err := Stage(context.Background(), st, b.source(), img, "elsewhere", nil)
	if err != nil || again.Info.Reference != root.Info.Reference {
		t.Errorf("staged again: %+v, %v", again, err)
	}
}

func TestStageTwiceGivesTheSameBytes(t *testing.T) {
	b := newBuilder(t)
	entries := bootable()
	for _, name := range []string{"z", "a", "m/n", "b"} {
		e := reg(name, name)
		e.PAXRecords = map[string]string{"SCHILY.xattr.user.z": "1", "SCHILY.xattr.user.a": "2",
			"SCHILY.xattr.security.selinux": "l"}
		entries = append(entries, e, hard("linked/"+filepath.Base(name), name))
	}
	b.layer(ocispec.MediaTypeImageLayerZstd, packLayer(entries...))
	var images []string
	var digests []any
	for range 3 {
		root, err := b.stage(newStore(t))
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, string(must(os.ReadFile(root.CFS()))))
		digests = append(digests, root.Info.RootDigest)
	}
	if images[0] != images[1] || images[1] != images[2] || digests[0] != digests[1] {
		t.Error("the same image gave different roots")
	}
}

func TestStageDockerSchema2(t *testing.T) {
	b := newBuilder(t)
	b.m.MediaType = "application/vnd.docker.distribution.manifest.v2+json"
	b.layer("application/vnd.docker.image.rootfs.diff.tar.gzip", packLayer(bootable()...))
	if _, err := b.stage(newStore(t)); err != nil {
		t.Fatal(err)
	}
}

func TestStageSharesObjects(t *testing.T) {
	st := newStore(t)
	one, two := newBuilder(t), newBuilder(t)
	big := strings.Repeat("0123456789", 200_000)
	one.layer(ocispec.MediaTypeImageLayer, packLayer(append(bootable(), reg("big", big), reg("v", "1"))...))
	two.layer(ocispec.MediaTypeImageLayer, packLayer(append(bootable(), reg("elsewhere/big", big), reg("v", "22"))...))
	if _, err := one.stage(st); err != nil {
		t.Fatal(err)
	}
	root, err := two.stage(st)
	if err != nil {
		t.Fatal(err)
	}
	if root.Info.NewBytes != 2 {
		t.Errorf("%d new bytes, want the 2 that changed", root.Info.NewBytes)
	}
}

// nothingVisible checks that a failed Stage left the store as if it never ran.
func nothingVisible(t testing.TB, st *store.Store) {
	t.Helper()
	roots, err := st.Roots()
	if err != nil || len(roots) != 0 {
		t.Errorf("roots: %+v, %v", roots, err)
	}
	for _, dir := range []string{"roots", "objects", "staging"} {
		if left := must(os.ReadDir(filepath.Join(st.ObjectsDir(), "..", dir))); len(left) != 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
}

func TestStageRefuses(t *testing.T) {
	good := packLayer(bootable()...)
	without := func(name string) []byte {
		return packLayer(slices.DeleteFunc(bootable(), func(e ent) bool { return e.Name == name })...)
	}
	damage := func(t *testing.T, b *builder, change func([]byte) []byte) {
		path := filepath.Join(b.dir, "blobs", "sha256", b.m.Layers[0].Digest.Encoded())
		if err := os.WriteFile(path, change(must(os.ReadFile(path))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		layer []byte
		setup func(*testing.T, *builder) // after the layer was added
		want  error
	}{
		{"no init", without("usr/lib/systemd/systemd"), nil, ErrNotBootable},
		{"init is no program",
			append([]byte(nil), packLayer(append(bootable()[1:], reg("usr/lib/systemd/systemd", "x"))...)...), nil,
			ErrNotBootable},
		{"init is an empty file", packLayer(append(bootable()[1:], program("sbin/init", ""))...), nil, ErrNotBootable},
		{"init is a dangling link", packLayer(append(bootable()[1:], sym("sbin/init", "../lib/systemd/systemd"))...),
			nil, ErrNotBootable},
		{"no os-release", without("usr/lib/os-release"), nil, ErrNotBootable},
		{"no layers", nil, nil, ErrNotBootable},
		{"hostile", packLayer(reg("../../etc/passwd", "x")), nil, ErrLayer},
		{"overlay attribute", packLayer(func() ent {
			e := reg("a", "x")
			e.PAXRecords = map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/00/00"}
			return e
		}()), nil, ErrLayer},
		{"wrong diff_id", good, func(t *testing.T, b *builder) { b.config.RootFS.DiffIDs[0] = digest.FromString("x") },
			verify.ErrDigest},
		{"tampered layer", good, func(t *testing.T, b *builder) {
			damage(t, b, func(d []byte) []byte { d[len(d)/2] ^= 1; return d })
		}, verify.ErrDigest},
		{"longer layer", good,
			func(t *testing.T, b *builder) { damage(t, b, func(d []byte) []byte { return append(d, 0) }) },
			verify.ErrDigest},
		{"truncated layer", good,
			func(t *testing.T, b *builder) { damage(t, b, func(d []byte) []byte { return d[:len(d)-9] }) },
			failure.ErrUnreachable},
		{"missing layer", good, func(t *testing.T, b *builder) {
			os.Remove(filepath.Join(b.dir, "blobs", "sha256", b.m.Layers[0].Digest.Encoded()))
		}, failure.ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, st := newBuilder(t), newStore(t)
			if c.layer != nil {
				b.layer(ocispec.MediaTypeImageLayerZstd, c.layer)
			}
			if c.setup != nil {
				c.setup(t, b)
			}
			_, err := b.stage(st)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			nothingVisible(t, st)
		})
	}
}

func TestStageStopsWhenAsked(t *testing.T) {
	b, st := newBuilder(t), newStore(t)
	b.layer(ocispec.MediaTypeImageLayer, packLayer(bootable()...))
	img, err := b.open(b.manifest())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, err = Stage(ctx, st, b.source(), img, "", func(e Event) {
		if e.Phase == PhaseCommit {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	nothingVisible(t, st)
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(*builder)
		want  error
		say   string
	}{
		{"other architecture", func(b *builder) { b.config.Architecture = "arm64" }, ErrPlatform,
			"the image is for arm64, and this host is amd64"},
		{"other system", func(b *builder) { b.config.OS = "windows" }, ErrPlatform,
			"the image is for windows/amd64, and this host is amd64"},
		{"no architecture", func(b *builder) { b.config.Architecture = "" }, ErrPlatform, ""},
		{"the oldest kernel is no version", func(b *builder) {
			b.config.Config.Labels = map[string]string{labelKernelMin: "new"}
		}, verify.ErrMalformed, "write a version of the kernel"},
		{"diff_ids missing", func(b *builder) { b.config.RootFS.DiffIDs = nil }, verify.ErrMalformed, ""},
		{"diff_id is no digest", func(b *builder) { b.config.RootFS.DiffIDs[0] = "sha256:0" }, verify.ErrMalformed,
			""},
		{"diff_id of another kind", func(b *builder) { b.config.RootFS.DiffIDs[0] = digest.SHA384.FromString("x") },
			verify.ErrMalformed, "neither a sha256 nor a sha512"},
		{"layer of unknown type",
			func(b *builder) { b.m.Layers[0].MediaType = "application/vnd.oci.image.layer.v1.tar+xz" },
			verify.ErrMalformed, ""},
		{"too many layers", func(b *builder) {
			for range layer.MaxLayers {
				b.m.Layers = append(b.m.Layers, b.m.Layers[0])
			}
		}, layer.ErrLimit, ""},
		{"huge layer", func(b *builder) { b.m.Layers[0].Size = 1 << 50 }, layer.ErrLimit, ""},
		{"negative layer", func(b *builder) { b.m.Layers[0].Size = -1 }, layer.ErrLimit, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder(t)
			b.layer(ocispec.MediaTypeImageLayer, packLayer(bootable()...))
			c.setup(b)
			_, err := b.open(b.manifest())
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.say)
			}
		})
	}
	t.Run("an artifact that is no image", func(t *testing.T) {
		b := newBuilder(t)
		b.m.Config = b.blob("application/vnd.oci.empty.v1+json", []byte("{}"))
		if _, err := b.open(b.json(b.m.MediaType, b.m)); !errors.Is(err, verify.ErrMalformed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOpenPicksThePlatform(t *testing.T) {
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayer, packLayer(bootable()...))
	ours := b.manifest()
	b.config.Architecture = "arm64"
	theirs := b.manifest()
	on := func(d ocispec.Descriptor, os, arch string) ocispec.Descriptor {
		d.Platform = &ocispec.Platform{OS: os, Architecture: arch}
		return d
	}
	patch := on(ours, "linux", "amd64")
	patch.ArtifactType = "application/vnd.updatectl.livepatch.v1"
	for _, c := range []struct {
		name    string
		entries []ocispec.Descriptor
		want    error
		say     string
	}{
		{"among others", []ocispec.Descriptor{on(theirs, "linux", "arm64"), patch, on(ours, "linux", "amd64"),
			on(theirs, "unknown", "unknown")}, nil, ""},
		{"entry without platform", []ocispec.Descriptor{ours, on(theirs, "unknown", "unknown")}, ErrPlatform, ""},
		{"sole entry without platform", []ocispec.Descriptor{ours}, nil, ""},
		{"only others", []ocispec.Descriptor{on(theirs, "linux", "arm64"), on(theirs, "linux", "riscv64")},
			ErrPlatform, "the image is for arm64, riscv64, and this host is amd64"},
		{"32 bit is not ours", []ocispec.Descriptor{on(ours, "linux", "386")}, ErrPlatform,
			"the image is for 386, and this host is amd64"},
		{"empty", nil, ErrPlatform, ""},
		{"the index lies", []ocispec.Descriptor{on(theirs, "linux", "amd64")}, ErrPlatform, "image is for arm64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: c.entries}
			index.SchemaVersion = 2
			if index.Manifests == nil {
				index.Manifests = []ocispec.Descriptor{}
			}
			img, err := b.open(b.json(index.MediaType, index))
			if c.want == nil {
				if err != nil || img.Verified.Digest() != ours.Digest || img.ID() != "sha256-"+ours.Digest.Encoded() {
					t.Errorf("got %+v, %v", img, err)
				}
				return
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.say)
			}
		})
	}
}

// Some distributions ship systemd's program of the same name as the agent.
func TestAnotherUpdatectlIsNotTheAgent(t *testing.T) {
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayer, packLayer(append(bootable(), program("usr/bin/updatectl", "other"))...))
	root, err := b.stage(newStore(t))
	if err != nil || root.Info.HasAgent {
		t.Errorf("HasAgent is %t, %v", root.Info.HasAgent, err)
	}
}

func TestParseOSRelease(t *testing.T) {
	for text, want := range map[string]store.OS{
		"ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME=\"Debian \\\"trixie\\\"\"\n": {ID: "debian", VersionID: "13",
			PrettyName: `Debian "trixie"`},
		"  ID='a b'  \n#ID=x\nnonsense\nIMAGE_VERSION=\n": {ID: "a b"},
		"ID=back\\\\slash\nVERSION_ID=\"":                 {ID: `back\slash`, VersionID: `"`},
		"":                                                {},
	} {
		if got := parseOSRelease(text); got != want {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
}

func TestSystemdLibraryNames(t *testing.T) {
	for name, want := range map[string]string{
		"libsystemd-shared-257.so":               "257",
		"libsystemd-shared-257.9-1~deb13u1.so":   "257",
		"libsystemd-shared-252-51.el9.so":        "252",
		"libsystemd-shared-259~rc1.so":           "259",
		"libsystemd-core-257.so":                 "",
		"libsystemd-shared-.so":                  "",
		"libsystemd-shared-257.so.backup":        "",
		"my-libsystemd-shared-257.so":            "",
		"libsystemd-shared-2570000000000000.txt": "",
	} {
		got := ""
		if m := systemdLibrary.FindStringSubmatch(name); m != nil {
			got = m[1]
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestStageRepairs: a root whose image.json is missing, damaged or no file is staged anew.
func TestStageRepairs(t *testing.T) {
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayerZstd, packLayer(bootable()...))
	s := newStore(t)
	root, err := b.stage(s)
	if err != nil {
		t.Fatal(err)
	}
	info := filepath.Join(root.Dir, "image.json")
	whole := must(os.ReadFile(info))
	for name, spoil := range map[string]func() error{
		"missing":  func() error { return nil },
		"empty":    func() error { return os.WriteFile(info, nil, 0o600) },
		"null":     func() error { return os.WriteFile(info, []byte("null"), 0o600) },
		"cut":      func() error { return os.WriteFile(info, whole[:len(whole)/2], 0o600) },
		"no file":  func() error { return unix.Mkfifo(info, 0o600) },
		"no names": func() error { return os.WriteFile(info, []byte("{}"), 0o600) },
	} {
		if err := errors.Join(os.RemoveAll(info), spoil()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.stage(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if now, err := s.Root(root.ID); err != nil || now.Info.RootDigest != root.Info.RootDigest {
			t.Errorf("%s: the root is %+v, %v", name, now, err)
		}
	}
}
