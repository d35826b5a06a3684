//go:build lab

package integration

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestPack packs a whole server twice, into the same image, from which umoci unpacks the same tree.
func TestPack(t *testing.T) {
	beside(t, lab.Nspawn)
	b := newBench(t)
	tree, err := lab.V1(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, second := filepath.Join(b.dir, "first"), filepath.Join(b.dir, "second")
	d := b.pack(tree, first)
	if again := b.pack(tree, second); again != d {
		t.Errorf("packing the same tree gave %s, then %s", d, again)
	}
	b.sameAsPacked(tree, ".", first, wholeSeconds)
}

// TestPackOdd packs everything unusual, from a directory and from a tar.
func TestPackOdd(t *testing.T) {
	beside(t, lab.Nspawn)
	b := newBench(t)
	archive := filepath.Join(b.dir, "odd.tar")
	if err := os.WriteFile(archive, b.oddLayer(), 0o644); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(b.dir, "odd")
	for name, c := range map[string]struct {
		packed, below string
		expect        func(node) node
	}{
		"directory": {tree, ".", wholeSeconds},
		// without parent directories, and with a linked FIFO that GNU tar has duplicated
		"tar": {archive, odd, func(n node) node {
			if n.Mode&unix.S_IFMT == unix.S_IFIFO {
				n.Nlink, n.First = 1, ""
			}
			return wholeSeconds(n)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			layout := filepath.Join(b.dir, "packed-"+name)
			b.pack(c.packed, layout)
			b.sameAsPacked(tree, c.below, layout, c.expect)
		})
	}
}

// TestSignatures signs with each tool and verifies with all others, in a registry and in layouts that other tools have
// copied. With another key, each refuses the signature.
func TestSignatures(t *testing.T) {
	beside(t, lab.Nspawn)
	b := newBench(t)
	r := lab.NewRegistry(t, lab.RegistryOptions{})
	layout := filepath.Join(b.dir, "packed")
	d := b.pack(smallTree(t), layout)
	stranger, err := lab.NewPublisher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	host, strange := b.host(r.Host), b.hostOf(stranger, r.Host)

	for name, c := range map[string]struct {
		form string
		sign func(b *bench, reference string) error
	}{
		"releasectl": {"bundle", func(b *bench, reference string) error {
			b.run(0, "releasectl", "sign", "--plain-http", "--key", b.publisher.Key, reference)
			return nil
		}},
		"releasectl-simple": {"simple-signing", func(b *bench, reference string) error {
			b.run(0, "releasectl", "sign", "--plain-http", "--form", "simple", "--key", b.publisher.Key, reference)
			return nil
		}},
		"cosign-3": {"bundle", func(b *bench, reference string) error {
			return b.publisher.Sign(b.Context(), r, reference)
		}},
		"cosign-2": {"simple-signing", func(b *bench, reference string) error {
			return b.publisher.SignOld(b.Context(), r, reference)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			repository := r.Host + "/os/" + name
			reference := repository + "@" + d.String()
			b.run(0, "releasectl", "push", "--plain-http", layout+":latest", repository+":stable")
			b.run(exitNotTrusted, "updatectl", "--root", host, "check", "--from", repository+":stable")
			if err := b.publisher.Verify(t.Context(), r, reference); err == nil {
				t.Fatal("cosign accepts an unsigned image")
			}
			if err := c.sign(b, reference); err != nil {
				t.Fatal(err)
			}

			if err := b.publisher.Verify(t.Context(), r, reference); err != nil {
				t.Error(err)
			}
			if c.form == "simple-signing" {
				b.cosign2("verify", "--key", b.publicKey(), "--insecure-ignore-tlog=true", reference)
			}
			b.trusted(host, repository+":stable", d, c.form)
			b.run(exitNotTrusted, "updatectl", "--root", strange, "check", "--from", repository+":stable")
			if out := b.run(0, "releasectl", "inspect", "--plain-http", "--key", b.publicKey(),
				repository+":stable"); !strings.Contains(out, d.String()) {
				t.Errorf("releasectl inspect says %s", out)
			}
			if got := b.tool("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}",
				"docker://"+repository+":stable"); strings.TrimSpace(got) != d.String() {
				t.Errorf("skopeo inspect says %q, want %s", got, d)
			}

			// skopeo copies signatures only by their tags: that of the index of referrers, and that of cosign.
			mirror := "oci:" + filepath.Join(b.dir, "mirror-"+name)
			tag := "sha256-" + d.Encoded()
			if c.form == "simple-signing" {
				tag += ".sig"
			}
			b.mirror("docker://"+repository+":stable", mirror+":stable")
			b.run(exitNotTrusted, "updatectl", "--root", host, "check", "--from", mirror+":stable")
			b.mirror("docker://"+repository+":"+tag, mirror+":"+tag)
			b.trusted(host, mirror+":stable", d, c.form)
			b.run(exitNotTrusted, "updatectl", "--root", strange, "check", "--from", mirror+":stable")

			// Back to a registry, with skopeo and with releasectl.
			b.mirror(mirror+":stable", "docker://"+repository+"-skopeo:stable")
			b.mirror(mirror+":"+tag, "docker://"+repository+"-skopeo:"+tag)
			b.run(0, "releasectl", "push", "--plain-http", strings.TrimPrefix(mirror, "oci:")+":stable",
				repository+"-releasectl:stable")
			for _, copied := range []string{repository + "-skopeo", repository + "-releasectl"} {
				b.trusted(host, copied+":stable", d, c.form)
				if err := b.publisher.Verify(t.Context(), r, copied+"@"+d.String()); err != nil {
					t.Error(err)
				}
			}

			// In cosign's own layout the index has the image, and the bundle is only among the blobs.
			saved := filepath.Join(b.dir, "saved-"+name)
			b.tool("cosign", "save", "--allow-http-registry", "--allow-insecure-registry", "--dir", saved, reference)
			b.tool("cosign", "verify", "--key", b.publicKey(), "--insecure-ignore-tlog=true", "--local-image", saved)
			b.trusted(host, "oci:"+saved, d, c.form)
			b.run(exitNotTrusted, "updatectl", "--root", strange, "check", "--from", "oci:"+saved)
		})
	}
}

// TestKeys signs with keys of every kind, in the format of openssl.
func TestKeys(t *testing.T) {
	beside(t, lab.Nspawn)
	b := newBench(t)
	r := lab.NewRegistry(t, lab.RegistryOptions{})
	layout := filepath.Join(b.dir, "packed")
	d := b.pack(smallTree(t), layout)
	for name, generate := range map[string]func() (crypto.Signer, error){
		"ecdsa": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		"rsa":   func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
		"ed25519": func() (crypto.Signer, error) {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			return key, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			key, err := generate()
			if err != nil {
				t.Fatal(err)
			}
			private, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			public, err := x509.MarshalPKIXPublicKey(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			b.publisher = &lab.Publisher{
				Key:    filepath.Join(b.dir, "release.key"),
				Public: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
			}
			if err := os.WriteFile(b.publisher.Key,
				pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
				t.Fatal(err)
			}
			host := b.host(r.Host)
			for option, form := range map[string]string{"bundle": "bundle", "simple": "simple-signing"} {
				repository := r.Host + "/keys/" + name + "-" + option
				b.run(0, "releasectl", "push", "--plain-http", layout+":latest", repository+":stable")
				b.run(0, "releasectl", "sign", "--plain-http", "--form", option, "--key", b.publisher.Key,
					repository+"@"+d.String())
				b.trusted(host, repository+":stable", d, form)
				b.tool("cosign", "verify", "--key", b.publicKey(), "--insecure-ignore-tlog=true",
					"--allow-http-registry", "--allow-insecure-registry", repository+"@"+d.String())
			}
		})
	}
}

// TestSignedLayout signs a layout without a registry, as on a USB stick for the host.
func TestSignedLayout(t *testing.T) {
	beside(t, lab.Nspawn)
	b := newBench(t)
	layout := filepath.Join(b.dir, "stick")
	d := b.pack(smallTree(t), layout)
	host := b.host()
	b.run(exitNotTrusted, "updatectl", "--root", host, "check", "--from", "oci:"+layout)
	b.sign(layout)
	b.trusted(host, "oci:"+layout, d, "bundle")
	copied := filepath.Join(b.dir, "copied") // with cp, and referred to by digest
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", layout, copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b.trusted(host, "oci:"+copied+"@"+d.String(), d, "bundle")
	b.run(exitAvailable, "updatectl", "--root", host, "stage", "--from", "oci:"+copied)
}

// TestForms stages images in the formats of other tools, with each of cosign's forms of signature.
func TestForms(t *testing.T) {
	beside(t, lab.Nspawn)
	b := newBench(t)
	r := lab.NewRegistry(t, lab.RegistryOptions{})
	layout := filepath.Join(b.dir, "packed")
	b.pack(smallTree(t), layout)
	want := b.stagedDump(b.signedCopy(layout))
	for name, c := range map[string]struct {
		options          []string
		manifest, layers string
	}{
		"podman": {[]string{"--format", "oci", "--dest-compress-format", "gzip", "--dest-force-compress-format"},
			ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerGzip},
		"zstd": {[]string{"--format", "oci", "--dest-compress-format", "zstd", "--dest-force-compress-format"},
			ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerZstd},
		"chunked": {[]string{"--format", "oci", "--dest-compress-format", "zstd:chunked",
			"--dest-force-compress-format"},
			ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerZstd},
		"docker": {[]string{"--format", "v2s2", "--dest-compress-format", "gzip", "--dest-force-compress-format"},
			"application/vnd.docker.distribution.manifest.v2+json",
			"application/vnd.docker.image.rootfs.diff.tar.gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			repository := r.Host + "/form/" + name
			b.mirrorAs(c.options, "oci:"+layout+":latest", "docker://"+repository+":stable")
			raw := b.tool("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+repository+":stable")
			var m ocispec.Manifest
			if err := json.Unmarshal([]byte(raw), &m); err != nil {
				t.Fatal(err)
			}
			if m.MediaType != c.manifest || len(m.Layers) != 1 || m.Layers[0].MediaType != c.layers {
				t.Fatalf("skopeo made an image of another format: %s", raw)
			}
			d := digest.FromString(raw)
			for form, sign := range map[string]func() error{
				"bundle": func() error { return b.publisher.Sign(t.Context(), r, repository+"@"+d.String()) },
				"simple-signing": func() error {
					return b.publisher.SignOld(t.Context(), r, repository+"-old@"+d.String())
				},
			} {
				reference := repository + ":stable"
				if form == "simple-signing" {
					reference = repository + "-old:stable"
					b.mirror("docker://"+repository+":stable", "docker://"+reference)
				}
				if err := sign(); err != nil {
					t.Fatal(err)
				}
				b.trusted(b.host(r.Host), reference, d, form)
				if got := b.stagedDump(b.stage(reference, r.Host)); got != want {
					t.Errorf("%s: composefs-info dumps another tree than that of the packed image", reference)
				}
			}
		})
	}
}

// TestPlatforms publishes for two architectures: the index is signed, and a host takes its own image from it.
func TestPlatforms(t *testing.T) {
	beside(t, lab.Nspawn)
	b := newBench(t)
	r := lab.NewRegistry(t, lab.RegistryOptions{})
	layout := filepath.Join(b.dir, "index")
	tree := smallTree(t)
	amd64 := b.packAs(tree, layout+":amd64", "--architecture", "amd64")
	arm64 := b.packAs(tree, layout+":arm64", "--architecture", "arm64")
	b.writeIndex(layout, "stable", amd64, arm64)
	b.writeIndex(layout, "others", arm64)

	for name, options := range map[string][]string{
		"oci":    {"--all"}, // this changes the index: skopeo marks the images with zstd
		"docker": {"--all", "--format", "v2s2", "--dest-compress-format", "gzip", "--dest-force-compress-format"},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			host := b.host(r.Host)
			repository := r.Host + "/platforms/" + name
			b.mirrorAs(options, "oci:"+layout+":stable", "docker://"+repository+":stable")
			raw := b.tool("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+repository+":stable")
			var index ocispec.Index
			if err := json.Unmarshal([]byte(raw), &index); err != nil || len(index.Manifests) != 2 {
				t.Fatalf("skopeo published no index of two images: %s (%v)", raw, err)
			}
			ours := index.Manifests[0]
			if ours.Platform == nil || ours.Platform.Architecture != "amd64" {
				t.Fatalf("skopeo changed the order: %s", raw)
			}
			// A signature on an image does not count for the index.
			if err := b.publisher.Sign(t.Context(), r, repository+"@"+ours.Digest.String()); err != nil {
				t.Fatal(err)
			}
			b.run(exitNotTrusted, "updatectl", "--root", host, "check", "--from", repository+":stable")
			if err := b.publisher.Sign(t.Context(), r, repository+"@"+digest.FromString(raw).String()); err != nil {
				t.Fatal(err)
			}
			b.trusted(host, repository+":stable", ours.Digest, "bundle")
			b.run(exitAvailable, "updatectl", "--root", host, "stage", "--from", repository+":stable")
		})
	}
	t.Run("releasectl", func(t *testing.T) {
		b := b.in(t)
		repository := r.Host + "/platforms/releasectl"
		b.run(0, "releasectl", "sign", "--key", b.publisher.Key, "oci:"+layout+":stable")
		b.run(0, "releasectl", "push", "--plain-http", layout+":stable", repository+":stable")
		raw := b.tool("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+repository+":stable")
		if err := b.publisher.Verify(t.Context(), r, repository+"@"+digest.FromString(raw).String()); err != nil {
			t.Error(err)
		}
		b.trusted(b.host(r.Host), repository+":stable", amd64, "bundle")
	})
	t.Run("another platform", func(t *testing.T) {
		b := b.in(t)
		b.run(0, "releasectl", "sign", "--key", b.publisher.Key, "oci:"+layout+":others")
		b.run(exitIncompatible, "updatectl", "--root", b.host(), "check", "--from", "oci:"+layout+":others")
	})
}

// in returns the bench for a subtest.
func (b *bench) in(t *testing.T) *bench {
	part := *b
	part.T = t
	var err error
	if part.dir, err = os.MkdirTemp(b.dir, "part-"); err != nil {
		t.Fatal(err)
	}
	return &part
}

// cosign2 runs cosign 2, of Debian 13.
func (b *bench) cosign2(command string, args ...string) {
	b.Helper()
	old, err := lab.OldTools(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	args = append([]string{command, "--allow-http-registry", "--allow-insecure-registry"}, args...)
	if _, err := lab.Tool(b.Context(), old, "cosign", args...); err != nil {
		b.Error(err)
	}
}

// publicKey writes the publisher's public key to a file and returns its path.
func (b *bench) publicKey() string {
	b.Helper()
	path := filepath.Join(b.dir, "release.pub")
	if err := os.WriteFile(path, []byte(b.publisher.Public), 0o644); err != nil {
		b.Fatal(err)
	}
	return path
}

// hostOf is like host, with the key of another publisher.
func (b *bench) hostOf(p *lab.Publisher, plainHTTP ...string) string {
	b.Helper()
	other := b.in(b.T)
	other.publisher = p
	return other.host(plainHTTP...)
}

// pack packs a tree as "latest" with releasectl, and returns the digest.
func (b *bench) pack(tree, layout string) digest.Digest {
	b.Helper()
	return b.packAs(tree, layout+":latest")
}

func (b *bench) packAs(tree, target string, options ...string) digest.Digest {
	b.Helper()
	var packed struct{ Digest digest.Digest }
	b.answer(&packed, 0, "releasectl", append([]string{"--output", "json", "pack", tree, target}, options...)...)
	return packed.Digest
}

// answer runs a program of the project and parses its JSON output.
func (b *bench) answer(v any, code int, program string, args ...string) {
	b.Helper()
	text := b.run(code, program, args...)
	if err := json.Unmarshal([]byte(text), v); err != nil {
		b.Fatalf("%s printed %s: %v", program, text, err)
	}
}

// trusted expects the agent to accept an image because of a signature of one form by the publisher's key.
func (b *bench) trusted(host, reference string, d digest.Digest, form string) {
	b.Helper()
	var found struct {
		Root     string
		Newer    bool
		Vouchers []struct{ Signer, Form string }
	}
	b.answer(&found, exitAvailable, "updatectl", "--root", host, "--output", "json", "check", "--from", reference)
	if want := "sha256-" + d.Encoded(); found.Root != want || !found.Newer {
		b.Errorf("%s is the root %s, want %s", reference, found.Root, want)
	}
	if len(found.Vouchers) != 1 || found.Vouchers[0].Signer != "release.pub" || found.Vouchers[0].Form != form {
		b.Errorf("%s is vouched for by %+v, want a %s by release.pub", reference, found.Vouchers, form)
	}
}

// mirror copies an image or index with skopeo, unchanged.
func (b *bench) mirror(from, to string) {
	b.Helper()
	b.mirrorAs([]string{"--all", "--preserve-digests"}, from, to)
}

func (b *bench) mirrorAs(options []string, from, to string) {
	b.Helper()
	args := []string{"copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"}
	b.tool("skopeo", append(append(args, options...), from, to)...)
}

// signedCopy signs and stages a copy of a layout, which stays unchanged.
func (b *bench) signedCopy(layout string) staged {
	b.Helper()
	signed := layout + "-signed"
	b.mirror("oci:"+layout+":latest", "oci:"+signed+":latest")
	b.sign(signed)
	return b.stage("oci:" + signed + ":latest")
}

// stagedDump returns what composefs-info dumps of a root.
func (b *bench) stagedDump(s staged) string {
	b.Helper()
	text := b.tool("composefs-info", "dump", s.cfs())
	if !strings.Contains(text, "/usr/lib/systemd/systemd ") {
		b.Fatalf("the staged tree has no init:\n%s", text)
	}
	return text
}

// writeIndex adds an index of images to a layout.
func (b *bench) writeIndex(layout, tag string, images ...digest.Digest) {
	b.Helper()
	file := filepath.Join(layout, "index.json")
	data, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	var top ocispec.Index
	if err := json.Unmarshal(data, &top); err != nil {
		b.Fatal(err)
	}
	index := ocispec.Index{Versioned: top.Versioned, MediaType: ocispec.MediaTypeImageIndex}
	for _, image := range images {
		i := slices.IndexFunc(top.Manifests, func(d ocispec.Descriptor) bool { return d.Digest == image })
		d := top.Manifests[i]
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: d.Annotations[ocispec.AnnotationRefName]}
		d.Annotations = nil
		index.Manifests = append(index.Manifests, d)
	}
	if data, err = json.Marshal(index); err != nil {
		b.Fatal(err)
	}
	d := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data)),
		Annotations: map[string]string{ocispec.AnnotationRefName: tag},
	}
	top.Manifests = append(top.Manifests, d)
	text, err := json.Marshal(top)
	if err != nil {
		b.Fatal(err)
	}
	err = errors.Join(os.WriteFile(filepath.Join(layout, "blobs/sha256", d.Digest.Encoded()), data, 0o644),
		os.WriteFile(file, text, 0o644))
	if err != nil {
		b.Fatal(err)
	}
}

// sameAsPacked unpacks with umoci what releasectl packed, and compares it with the tree below a directory. It skips
// the content of the directories that the kernel and PID 1 fill on every host.
func (b *bench) sameAsPacked(tree, below, layout string, expect func(node) node) {
	b.Helper()
	bundle := layout + "-unpacked"
	b.tool("umoci", "unpack", "--image", layout+":latest", bundle)
	got := readTree(b.T, filepath.Join(bundle, "rootfs", below))
	want := readTree(b.T, filepath.Join(tree, below))
	for name, n := range want {
		if top, rest, _ := strings.Cut(name, "/"); slices.Contains([]string{"proc", "sys", "run"}, top) {
			if rest != "" {
				delete(want, name)
				continue
			}
			n.Nlink = 0 // it counts what is skipped
		}
		delete(n.Xattrs, "user.empty") // see TestSameTree
		want[name] = expect(n)
	}
	if len(want) < 3000 {
		b.Fatalf("only %d names to compare", len(want))
	}
	b.Logf("%d names to compare", len(want))
	sameTree(b.T, got, want)
}

// wholeSeconds returns a node with its time as in a tar that umoci writes.
func wholeSeconds(n node) node {
	sec, _, _ := strings.Cut(n.Mtime, ".")
	n.Mtime = sec + ".000000000"
	return n
}
