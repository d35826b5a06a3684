//go:build lab

package integration

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// A layerEntry is one name in a layer.
type layerEntry struct {
	name, text, link string
	mode             int64
}

func aFile(name, text string) layerEntry    { return layerEntry{name: name, text: text, mode: 0o644} }
func aProgram(name, text string) layerEntry { return layerEntry{name: name, text: text, mode: 0o755} }
func aLink(name, target string) layerEntry  { return layerEntry{name: name, link: target} }

// gone returns a whiteout: it hides the name in lower layers.
func gone(name string) layerEntry {
	return layerEntry{name: filepath.Join(filepath.Dir(name), ".wh."+filepath.Base(name)), mode: 0o644}
}

// layerTar returns a layer with entries. It has no entries for directories, which are created when it is unpacked.
func layerTar(t *testing.T, entries []layerEntry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: e.mode, Size: int64(len(e.text)),
			ModTime: time.Unix(1750000000, 0)}
		if e.link != "" {
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// document is any JSON object of an OCI layout.
type document = map[string]any

// variant publishes a version's image with one more layer as os/NAME:stable, signed, and returns the reference and the
// root.
func (s *site) variant(name, version string, entries ...layerEntry) (reference, root string) {
	s.Helper()
	dir, root := s.variantLayout(name, version, entries...)
	return s.registry.Host + "/" + s.offerLayout(name, dir, s.publisher.Key), root
}

// variantLayout makes a layout with a version's image and one more layer, tagged "stable", and returns its path and
// the image's root.
func (s *site) variantLayout(name, version string, entries ...layerEntry) (dir, root string) {
	s.Helper()
	base, err := s.publisher.Layout(s.Context(), s.tree(version))
	if err != nil {
		s.Fatal(err)
	}
	dir = filepath.Join(s.TempDir(), name)
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		s.Fatal(err)
	}
	read := func(name string) document {
		text, err := os.ReadFile(filepath.Join(base, name))
		if err != nil {
			s.Fatal(err)
		}
		var d document
		if err := json.Unmarshal(text, &d); err != nil {
			s.Fatal(err)
		}
		return d
	}
	path := func(descriptor any) string {
		_, hex, _ := strings.Cut(descriptor.(document)["digest"].(string), ":")
		return "blobs/sha256/" + hex
	}
	write := func(kind string, value any) document {
		text, isBlob := value.([]byte)
		if !isBlob {
			if text, err = json.Marshal(value); err != nil {
				s.Fatal(err)
			}
		}
		hex := fmt.Sprintf("%x", sha256.Sum256(text))
		if err := os.WriteFile(filepath.Join(blobs, hex), text, 0o644); err != nil {
			s.Fatal(err)
		}
		return document{"mediaType": kind, "digest": "sha256:" + hex, "size": len(text)}
	}
	index := read("index.json")
	manifest := read(path(index["manifests"].([]any)[0]))
	config := read(path(manifest["config"]))
	for _, l := range manifest["layers"].([]any) {
		if err := os.Link(filepath.Join(base, path(l)), filepath.Join(dir, path(l))); err != nil {
			s.Fatal(err)
		}
	}
	layer := write("application/vnd.oci.image.layer.v1.tar", layerTar(s.T, entries))
	rootfs := config["rootfs"].(document)
	rootfs["diff_ids"] = append(rootfs["diff_ids"].([]any), layer["digest"])
	manifest["layers"] = append(manifest["layers"].([]any), layer)
	manifest["config"] = write("application/vnd.oci.image.config.v1+json", config)
	image := write("application/vnd.oci.image.manifest.v1+json", manifest)
	image["annotations"] = document{"org.opencontainers.image.ref.name": "stable"}
	index["manifests"] = []any{image}
	text, err := json.Marshal(index)
	if err != nil {
		s.Fatal(err)
	}
	for name, text := range map[string]string{"index.json": string(text),
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			s.Fatal(err)
		}
	}
	return dir, strings.Replace(image["digest"].(string), ":", "-", 1)
}

// agentFiles returns the files of "make install" as entries of a layer; every unit ends with a mark.
func (s *site) agentFiles(mark string) []layerEntry {
	s.Helper()
	dir := s.TempDir()
	if err := lab.Install(dir); err != nil {
		s.Fatal(err)
	}
	var entries []layerEntry
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.Type() == fs.ModeSymlink {
			target, err := os.Readlink(path)
			entries = append(entries, aLink(name, target))
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		switch {
		case strings.HasPrefix(name, "usr/bin/"):
			entries = append(entries, aProgram(name, string(text)))
		case strings.HasSuffix(name, ".service"):
			text = append(text, mark...)
			fallthrough
		default:
			entries = append(entries, aFile(name, string(text)))
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return entries
}

// TestUnusualImages shows that images of other kinds than the lab's work, too, and that the running kernel keeps its
// modules, whichever image they came from.
func TestUnusualImages(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "unusual")
	s.settlesAtOnce()
	h := s.host
	kernel := h.Must(t, "uname", "-r")
	modules := "usr/lib/modules/" + kernel
	module := strings.Repeat("a module of the running kernel\n", 10_000) // too large for the metadata image
	withModules, modulesRoot := s.variant("modules", "1", aFile(modules+"/modules.dep", "kernel/x.ko:\n"),
		aFile(modules+"/kernel/x.ko", module))
	const mark = "# brought by the image\n"
	odd, oddRoot := s.variant("odd", "2", append(s.agentFiles(mark), gone("srv"), gone("home"),
		aLink("home", "var/home"))...)
	h.Must(t, "sh", "-ec", "useradd --create-home carol; echo hers > /home/carol/file; echo served > /srv/file")

	moduleIsThere := func(s *site) {
		s.Helper()
		got := h.Must(s.T, "sh", "-ec", "cat /"+modules+"/kernel/x.ko | sha256sum; wc -c < /"+modules+"/kernel/x.ko")
		if !strings.HasSuffix(got, fmt.Sprintf("\n%d", len(module))) {
			s.Errorf("the running kernel's module has changed: %s", got)
		}
	}
	t.Log("an image with the running kernel's modules")
	s.switches("apply", "--from", withModules)
	s.runs(modulesRoot, "1")
	moduleIsThere(s)

	t.Log("one without them")
	s.publish("2", "os/server:stable")
	s.switches("apply")
	s.runs(s.roots["2"], "2")
	moduleIsThere(s)

	t.Run("an agent of its own, no /srv, and /home is a link", func(t *testing.T) {
		s := s.in(t)
		s.switches("apply", "--from", odd)
		s.runs(oddRoot, "2")
		if text := h.Must(t, "cat", "/usr/lib/systemd/system/updatectl-arm.service"); !strings.HasSuffix(text+"\n",
			mark) {
			t.Errorf("another unit hides the image's:\n%s", text)
		}
		if r := h.Run(t.Context(), "test", "-e",
			"/var/lib/updatectl/roots/"+oddRoot+"/graft/usr/bin/updatectl"); r.Code == 0 {
			t.Error("another agent hides the image's own")
		}
		if got := h.Must(t, "sh", "-ec", "readlink /home; cat /home/carol/file /srv/file; "+
			"stat -c %U /home/carol"); got != "var/home\nhers\nserved\ncarol" {
			t.Errorf("the data of the host is missing: %q", got)
		}
	})
	t.Run("gc keeps what the kernel needs", func(t *testing.T) {
		s := s.in(t)
		moduleIsThere(s)
		s.updatectl(exitDone, "gc", "--all")
		for _, r := range s.status().Good {
			if r.Root == modulesRoot {
				t.Fatal("the first image is still good: this shows nothing")
			}
		}
		// reading the module alone could be served from memory
		h.Must(t, "test", "-e", "/var/lib/updatectl/roots/"+modulesRoot+"/root.cfs")
		moduleIsThere(s)
	})
	t.Run("a switch that fails keeps everything", func(t *testing.T) {
		s := s.in(t)
		s.armsBy("/bin/false")
		s.fails("not armed", "did not run to its end", "apply", "--retry")
		s.armsAgain()
		moduleIsThere(s)
		h.Must(t, "cat", "/home/carol/file", "/srv/file")
	})
	t.Run("and back", func(t *testing.T) {
		s := s.in(t)
		s.switches("rollback")
		s.runs(s.roots["2"], "2")
		moduleIsThere(s)
		if got := h.Must(t, "cat", "/home/carol/file", "/srv/file"); got != "hers\nserved" {
			t.Errorf("the data of the host is missing: %q", got)
		}
	})
}

const unitDir = "usr/lib/systemd/system/"

// early returns the entries of a service that runs before all others.
func early(name, script string) []layerEntry {
	return []layerEntry{
		aFile(unitDir+name, "[Unit]\nDefaultDependencies=no\nAfter=local-fs.target\nBefore=sysinit.target\n"+
			"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -ec '"+script+"'\n"),
		aLink(unitDir+"sysinit.target.wants/"+name, "../"+name),
	}
}

// fillVar is a script that leaves no free block in /var.
const fillVar = "fallocate -l $(df --output=avail -B1 /var | tail -n 1) /var/fill || :; " +
	"cat /dev/zero > /var/fill2 || :"
