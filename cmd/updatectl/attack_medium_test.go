package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/verify"
)

// mediumRows: layouts on a stick that somebody was given, and archives of them.
func mediumRows() []row {
	// on is the good image in a layout of the row's own, and how that is changed.
	on := func(change func(a *attacker, dir string, m ocispec.Descriptor)) func(*attacker) string {
		return func(a *attacker) string {
			dir := filepath.Join(a.t.TempDir(), "stick")
			if out, err := exec.Command("cp", "-a", a.layout, dir).CombinedOutput(); err != nil {
				a.t.Fatalf("%v: %s", err, out)
			}
			m, err := a.tagged("good")
			a.check(err)
			change(a, dir, m)
			return "oci:" + dir + ":good"
		}
	}
	instead := func(file func(string, ocispec.Descriptor) string, put func(path string) error) func(*attacker) string {
		return on(func(a *attacker, dir string, m ocispec.Descriptor) {
			path := file(dir, m)
			a.check(errors.Join(os.RemoveAll(path), put(path)))
		})
	}
	index := func(dir string, _ ocispec.Descriptor) string { return filepath.Join(dir, "index.json") }
	blobs := func(dir string, _ ocispec.Descriptor) string { return filepath.Join(dir, "blobs") }
	manifest := func(dir string, m ocispec.Descriptor) string {
		return filepath.Join(dir, "blobs/sha256", m.Digest.Encoded())
	}
	fifo := func(path string) error { return unix.Mkfifo(path, 0o644) }
	link := func(to string) func(string) error {
		return func(path string) error { return os.Symlink(to, path) }
	}
	// packed is the layout as a tar, with more entries before the end.
	packed := func(more func(a *attacker, tar string) error) func(*attacker) string {
		return func(a *attacker) string {
			file := filepath.Join(a.t.TempDir(), "stick.tar")
			if out, err := exec.Command("tar", "-C", a.layout, "-cf", file, ".").CombinedOutput(); err != nil {
				a.t.Fatalf("%v: %s", err, out)
			}
			a.check(more(a, file))
			return "oci-archive:" + file + ":good"
		}
	}
	appended := func(entries ...entry) func(*attacker) string {
		return packed(func(a *attacker, tar string) error {
			text, err := os.ReadFile(tar)
			a.check(err)
			return os.WriteFile(tar, append(bytes.TrimRight(text, "\x00"), append(make([]byte, padding(text)),
				archive(entries...)...)...), 0o644)
		})
	}
	return []row{
		{name: "FIFO as the index of a layout", publish: instead(index, fifo), code: 31, says: "not a regular file"},
		{name: "FIFO as a manifest", publish: instead(manifest, fifo), code: 31, says: "not a regular file"},
		{name: "directory as a manifest", code: 31, says: "not a regular file", publish: instead(manifest,
			func(path string) error { return os.Mkdir(path, 0o755) })},
		{name: "index that is a link to a secret", publish: instead(index, link("/etc/shadow")), code: 31, says: "escapes"},
		{name: "index that is a link to an endless device", publish: instead(index, link("/dev/zero")), code: 31,
			says: "escapes"},
		{name: "manifest that is a link out", publish: instead(manifest, link("../../../../../etc/shadow")), code: 31,
			says: "escapes"},
		{name: "blobs that are a link out", code: 31, says: "escapes", publish: func(a *attacker) string {
			return instead(blobs, link(filepath.Join(a.layout, "blobs")))(a)
		}},
		{name: "index without an end", code: 31, says: "more than", publish: instead(index, func(path string) error {
			f, err := os.Create(path)
			if err != nil {
				return err
			}
			return errors.Join(f.Truncate(1<<40), f.Close())
		})},
		{name: "hundreds of wrong signatures", code: 20, says: "no signature", publish: func(a *attacker) string {
			d := a.fresh("buried")
			m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Subject: &d}
			m.SchemaVersion = 2
			for i := range 500 {
				m.Layers = append(m.Layers, ocispec.Descriptor{
					MediaType: verify.BundleMediaType, Digest: digest.FromString(fmt.Sprint(i)), Size: verify.MaxBundle,
				})
			}
			for i := range 100 {
				m.Annotations = map[string]string{"number": fmt.Sprint(i)}
				text, err := json.Marshal(m)
				a.check(err)
				listed, err := a.put(ocispec.MediaTypeImageManifest, text)
				a.check(errors.Join(err, a.list(listed)))
			}
			return a.tag(d, "buried")
		}},

		{name: "archive with an index twice", publish: appended(entry{name: "index.json", body: "{}"}), code: 31,
			says: `contains "index.json" twice`},
		{name: "archive with a link", publish: appended(entry{name: "blobs/x", kind: '2', target: "/etc/shadow"}), code: 31,
			says: "neither a file nor a directory"},
		{name: "archive with a name outside", publish: appended(entry{name: "../escape", body: "x"}), code: 31,
			says: "an entry with the name"},
		{name: "archive that is compressed", code: 31, says: "it is compressed with gzip",
			publish: packed(func(a *attacker, tar string) error {
				text, err := os.ReadFile(tar)
				a.check(err)
				return os.WriteFile(tar, gzipped(text), 0o644)
			})},
		{name: "archive that is cut short", code: 31, says: "it ends within",
			publish: packed(func(a *attacker, tar string) error {
				st, err := os.Stat(tar)
				a.check(err)
				return os.Truncate(tar, st.Size()/2)
			})},
	}
}

// padding is how many zeros are missing up to the next block after the last byte that is not zero.
func padding(tar []byte) int { return -len(bytes.TrimRight(tar, "\x00")) & (block - 1) }
