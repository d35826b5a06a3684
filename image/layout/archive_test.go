package layout

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/verify"
)

func openArchive(t *testing.T, file string) *Layout {
	t.Helper()
	l, err := New(ArchivePrefix, file)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// wantError checks the class of an error and its text.
func wantError(t *testing.T, err, want error, say string) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), say) {
		t.Errorf("got %v, want %v with %q", err, want, say)
	}
}

// entry is an entry of a hostile tar.
type entry struct {
	h       tar.Header
	content string
}

func packed(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.h.Mode = 0o644
		if e.h.Typeflag == 0 || e.h.Typeflag == tar.TypeReg {
			e.h.Size = int64(len(e.content))
		}
		if err := w.WriteHeader(&e.h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func named(name string) entry { return entry{tar.Header{Name: name}, "{}"} }

// sparse packs a file with a hole.
func sparse(t *testing.T, format string) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/index.json", []byte("{}"), 0o644),
		os.Truncate(dir+"/index.json", 1<<20)); err != nil {
		t.Fatal(err)
	}
	content, err := exec.Command("tar", "-C", dir, "--format", format, "--sparse", "-cf", "-", "index.json").Output()
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestHostileArchives(t *testing.T) {
	index := entry{tar.Header{Name: "index.json"}, `{"schemaVersion":2,"manifests":[]}`}
	good := packed(t, index, entry{tar.Header{Name: "blobs/"}, ""}, named("oci-layout"))
	var many bytes.Buffer
	w := tar.NewWriter(&many)
	for range maxArchived + 1 {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "d/"}); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	for _, c := range []struct {
		name    string
		content []byte
		say     string
	}{
		{"dot dot", packed(t, index, named("../index.json")), `"../index.json"`},
		{"dot dot within", packed(t, index, named("blobs/../../x")), `"blobs/../../x"`},
		{"absolute", packed(t, index, named("/etc/passwd")), `"/etc/passwd"`},
		{"empty part", packed(t, index, named("blobs//x")), `"blobs//x"`},
		{"long name", packed(t, index, named("blobs/"+strings.Repeat("x", maxArchivedName))), "with the name"},
		{"index twice", packed(t, index, index), `"index.json" twice`},
		{"index twice, written differently", packed(t, index, named("./index.json")), `"index.json" twice`},
		{"blob twice", packed(t, index, named("blobs/sha256/x"), named("blobs/sha256/x")), "twice"},
		{"symbolic link", packed(t, index,
			entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "blobs/x", Linkname: "/etc/shadow"}, ""}),
			"neither a file nor a directory"},
		{"index is a link", packed(t,
			entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "index.json", Linkname: "/etc/shadow"}, ""}),
			"neither a file nor a directory"},
		{"hard link", packed(t, index,
			entry{tar.Header{Typeflag: tar.TypeLink, Name: "x", Linkname: "index.json"}, ""}),
			"neither a file nor a directory"},
		{"file without a name", packed(t, index, entry{tar.Header{Typeflag: tar.TypeReg, Name: "."}, "{}"}),
			"neither a file nor a directory"},
		{"device", packed(t, index, entry{tar.Header{Typeflag: tar.TypeChar, Name: "x"}, ""}),
			"neither a file nor a directory"},
		{"holes, as GNU writes them", sparse(t, "gnu"), "neither a file nor a directory"},
		{"holes, as POSIX has them", sparse(t, "posix"), "sparse file"},
		{"too many entries", many.Bytes(), "more than"},
		{"large index", packed(t, entry{tar.Header{Name: "index.json"}, strings.Repeat(" ", verify.MaxManifest+1)}),
			"more than"},
		{"index that is no index", packed(t, named("index.json/x")), "index.json"},
		{"no index", packed(t, named("oci-layout")), "index.json"},
		{"empty", nil, "index.json"},
		{"no tar", []byte(strings.Repeat("no tar at all ", 100)), "not an intact tar"},
		{"cut within a header", good[:300], "not an intact tar"},
		{"cut within a file", packed(t, index, entry{tar.Header{Name: "x"}, strings.Repeat("x", 5000)})[:3000],
			"ends within"},
		{"gzip", []byte("\x1f\x8b\x08\x00rest"), "compressed with gzip"},
		{"zstd", []byte("\x28\xb5\x2f\xfdrest"), "compressed with zstd"},
		{"xz", []byte("\xfd7zXZ\x00rest"), "compressed with xz"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "image.tar")
			if err := os.WriteFile(file, c.content, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := openArchive(t, file).Resolve(t.Context(), "stable")
			wantError(t, err, failure.ErrUnreachable, c.say)
			_, err = openArchive(t, file).Referrers(t.Context(), digest.FromString("x"))
			wantError(t, err, failure.ErrUnreachable, c.say)
		})
	}
	for file, say := range map[string]string{"/dev/zero": "not a regular file", t.TempDir(): "not a regular file",
		filepath.Join(t.TempDir(), "none"): "does not exist"} {
		_, err := openArchive(t, file).Resolve(t.Context(), "stable")
		wantError(t, err, failure.ErrUnreachable, say)
	}
}

// Whatever the tar contains, the files that are found are inside it, and have names that are valid in a directory.
func FuzzArchive(f *testing.F) {
	seeds := [][]byte{
		packed(f, named("index.json"), named("./oci-layout"), named("blobs/sha256/x")),
		packed(f, entry{tar.Header{Name: strings.Repeat("x/", 80) + "x", Format: tar.FormatPAX}, "x"}),
		packed(f, entry{tar.Header{Name: "x", Format: tar.FormatGNU}, "x"}),
		packed(f, entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "x", Linkname: "y"}, ""}),
		packed(f, named("x"))[:600],
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := scanTar(bytes.NewReader(data), int64(len(data)))
		if (err == nil) != (entries != nil) {
			t.Errorf("%d entries and %v", len(entries), err)
		}
		for name, e := range entries {
			if !fs.ValidPath(name) || e.offset < 0 || e.size < 0 || e.offset+e.size > int64(len(data)) {
				t.Errorf("%q at %+v of %d bytes", name, e, len(data))
			}
		}
	})
}

// TestArchiveOfHeaders: a tar of nothing but extensions of headers is not read to its end.
func TestArchiveOfHeaders(t *testing.T) {
	const each = 1 << 20
	f, err := os.Create(filepath.Join(t.TempDir(), "headers.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var header bytes.Buffer
	w := tar.NewWriter(&header)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: each}); err != nil {
		t.Fatal(err)
	}
	long := header.Bytes()[:512]
	long[156] = tar.TypeGNULongName
	copy(long[148:], "        ")
	sum := 0
	for _, b := range long {
		sum += int(b)
	}
	copy(long[148:], fmt.Sprintf("%06o\x00 ", sum))
	for i := range int64(maxHeaders/each + 2) {
		if _, err := f.WriteAt(long, i*(each+512)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = openArchive(t, f.Name()).Resolve(t.Context(), "")
	wantError(t, err, failure.ErrUnreachable, "its headers have more than")
}
