package inventory

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/layer"
)

var some = Layer{Blob: digest.FromString("blob"), Diff: digest.FromString("diff")}

// entries are of every kind, with the extremes of what archive/tar reads.
func entries() []layer.Noted {
	return []layer.Noted{
		{Header: &tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, ModTime: time.Unix(0, 0)}},
		{Header: &tar.Header{Typeflag: tar.TypeReg, Name: "a/" + strings.Repeat("n", 4000), Size: 1 << 34, Uid: 1 << 31,
			Gid: -1, Mode: 0o6755, ModTime: time.Unix(-1<<40, 999999999),
			PAXRecords: map[string]string{"SCHILY.xattr.user.z": "\x00line\n", "SCHILY.xattr.a": "", "mtime": "1"}},
			Object: fsverity.Sum([]byte("content"))},
		{Header: &tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../a b", ModTime: time.Unix(1<<40, 1)}},
		{Header: &tar.Header{Typeflag: tar.TypeBlock, Name: "d", Devmajor: 1<<12 - 1, Devminor: 1<<20 - 1,
			ModTime: time.Unix(5, 5)}},
		{Header: &tar.Header{Typeflag: tar.TypeReg, Name: ".wh.a", ModTime: time.Time{}}},
	}
}

// write writes an inventory of the layer and returns its name.
func write(t testing.TB, l Layer, list []layer.Noted) string {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, l)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if err := w.Add(e.Header, e.Object); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return save(t, b.Bytes())
}

func save(t testing.TB, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "inventory")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReadsWhatWasWritten(t *testing.T) {
	f, err := Open(write(t, some, entries()), some)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := entries()
	delete(want[1].Header.PAXRecords, "mtime")
	n := 0
	for e, err := range f.Entries() {
		if err != nil {
			t.Fatal(err)
		}
		if n >= len(want) {
			t.Fatal("there are more entries than were written")
		}
		w := want[n].Header
		if e.Header.ModTime.Unix() != w.ModTime.Unix() || e.Header.ModTime.Nanosecond() != w.ModTime.Nanosecond() {
			t.Errorf("time %v, want %v", e.Header.ModTime, w.ModTime)
		}
		w.ModTime = e.Header.ModTime
		if !reflect.DeepEqual(e.Header, w) || e.Object != want[n].Object {
			t.Errorf("got %+v, want %+v", e.Header, w)
		}
		n++
	}
	if n != len(want) {
		t.Errorf("%d entries, want %d", n, len(want))
	}
}

// TestDamaged changes and cuts the file at every byte.
func TestDamaged(t *testing.T) {
	name := write(t, some, entries())
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, content []byte) {
		t.Helper()
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Open(name, some)
		if !errors.Is(err, ErrUnusable) {
			t.Errorf("%s: opened as %v, %v", what, f, err)
		}
		if err := Check(name); !errors.Is(err, ErrUnusable) {
			t.Errorf("%s: checked: %v", what, err)
		}
	}
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1
		refused(fmt.Sprintf("byte %d", i), flipped)
		refused(fmt.Sprintf("the first %d bytes", i), good[:i])
	}
	refused("longer", append(bytes.Clone(good), 0))
	if err := os.WriteFile(name, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := Open(name, some); err != nil {
		t.Errorf("intact: %v", err)
	} else {
		f.Close()
	}
}

func TestOtherLayer(t *testing.T) {
	name := write(t, some, entries())
	for what, l := range map[string]Layer{
		"blob":     {digest.FromString("other"), some.Diff},
		"diff_id":  {some.Blob, digest.FromString("other")},
		"exchange": {some.Diff, some.Blob},
		"sha512":   {digest.SHA512.FromString("blob"), some.Diff},
	} {
		if _, err := Open(name, l); !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), "another layer") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := Check(name); err != nil {
		t.Errorf("of any layer: %v", err)
	}
	if _, err := Open(name+"-missing", some); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, ErrUnusable) {
		t.Errorf("missing: %v", err)
	}
}

// sealed returns an inventory with a right checksum, whatever its entries are.
func sealed(body []byte) []byte {
	zip, err := zstd.NewWriter(nil, zstd.WithWindowSize(window))
	if err != nil {
		panic(err)
	}
	content := append([]byte(some.head()), zip.EncodeAll(body, nil)...)
	sum := sha256.Sum256(content)
	return append(content, sum[:]...)
}

// TestMalformedEntries: the checksum can be right although the entries are not.
func TestMalformedEntries(t *testing.T) {
	one := appendEntry(nil, entries()[1].Header, entries()[1].Object)
	huge := binary.AppendUvarint([]byte{kindPlain, '0'}, 1<<40)
	negative := appendEntry(nil, &tar.Header{Typeflag: tar.TypeReg, Size: -1}, fsverity.Digest{})
	for what, c := range map[string]struct {
		body []byte
		say  string
	}{
		"empty":          {nil, "unexpected EOF"},
		"no end":         {one, "unexpected EOF"},
		"cut":            {one[:len(one)-1], "unexpected EOF"},
		"after the end":  {append(bytes.Clone(one), kindEnd, kindEnd), "something follows"},
		"unknown kind":   {append(bytes.Clone(one), 7), "unknown kind 7"},
		"long name":      {huge, "a length of"},
		"negative size":  {append(negative, kindEnd), "-1 bytes"},
		"endless name":   {append([]byte{kindPlain, '0'}, bytes.Repeat([]byte{0xff}, 20)...), "overflow"},
		"endless target": {append([]byte{kindPlain, '0', 0}, bytes.Repeat([]byte{0xff}, 20)...), "overflow"},
		"endless list": {append(append([]byte{kindPlain, '0'}, make([]byte, 10)...), bytes.Repeat([]byte{0xff}, 20)...),
			"overflow"},
		"cut length":     {append([]byte{kindPlain, '0'}, bytes.Repeat([]byte{0xff}, 9)...), "unexpected EOF"},
		"endless number": {append([]byte{kindPlain, '0', 0, 0}, bytes.Repeat([]byte{0xff}, 20)...), "overflow"},
	} {
		f, err := Open(save(t, sealed(c.body)), some)
		if err != nil {
			t.Fatal(err)
		}
		var last error
		for _, err := range f.Entries() {
			last = err
		}
		f.Close()
		if !errors.Is(last, ErrUnusable) || !strings.Contains(last.Error(), c.say) {
			t.Errorf("%s: %v, want %q", what, last, c.say)
		}
	}
}

// TestTooLarge: a layer whose inventory is too large is staged without one.
func TestTooLarge(t *testing.T) {
	w, err := NewWriter(io.Discard, some)
	if err != nil {
		t.Fatal(err)
	}
	w.out.size = maxFile - 100
	for _, e := range entries() {
		if err := w.Add(e.Header, e.Object); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != ErrTooLarge {
		t.Errorf("got %v", err)
	}
}

// TestUnfit: what no reader would take is not kept either.
func TestUnfit(t *testing.T) {
	long := strings.Repeat("x", maxText+1)
	for name, hdr := range map[string]*tar.Header{
		"size":      {Size: -1},
		"name":      {Name: long},
		"target":    {Linkname: long},
		"attribute": {PAXRecords: map[string]string{"SCHILY.xattr.user.a": long}},
	} {
		w, err := NewWriter(io.Discard, some)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Add(hdr, fsverity.Digest{}), w.Add(entries()[0].Header, fsverity.Digest{})); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != ErrTooLarge {
			t.Errorf("%s: %v", name, err)
		}
	}
	w, err := NewWriter(io.Discard, some)
	if err != nil {
		t.Fatal(err)
	}
	w.unpacked = maxEntries - 10
	if err := errors.Join(w.Add(entries()[0].Header, fsverity.Digest{}), w.Close()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("all entries together: %v", err)
	}
}

// FuzzEntries: reading ends, with all that a tree is made of or with an error.
func FuzzEntries(f *testing.F) {
	var body []byte
	for _, e := range entries() {
		body = appendEntry(body, e.Header, e.Object)
	}
	f.Add(append(bytes.Clone(body), kindEnd))
	f.Add(body)
	for n := range 4 {
		f.Add(append([]byte{kindPlain, '0'}, append(make([]byte, n), bytes.Repeat([]byte{0xff}, 10)...)...))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		file, err := Open(save(t, sealed(body)), some)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		err = layer.NewTree().Replay(file.Entries())
		if err != nil && !errors.Is(err, ErrUnusable) && !errors.Is(err, layer.ErrLayer) {
			t.Errorf("%v has no class", err)
		}
	})
}

// BenchmarkReplay builds the tree of a server root with 38 900 entries.
func BenchmarkReplay(b *testing.B) {
	name := write(b, some, server(38900))
	st, err := os.Stat(name)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(st.Size()), "file-bytes")
	for b.Loop() {
		f, err := Open(name, some)
		if err != nil {
			b.Fatal(err)
		}
		if err := layer.NewTree().Replay(f.Entries()); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

// server returns entries such as those of a server root.
func server(n int) []layer.Noted {
	var list []layer.Noted
	for i := range n {
		hdr := &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(i%70000) + 1, ModTime: time.Unix(int64(1.7e9)+
			int64(i/50), 0), Name: fmt.Sprintf("usr/share/package-%d/directory-%d/file-%d.conf", i/300, i/20, i)}
		list = append(list, layer.Noted{Header: hdr, Object: fsverity.Sum([]byte(hdr.Name))})
	}
	return list
}
