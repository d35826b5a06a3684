package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/verify"
)

func gzipped(t testing.TB, data []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstded(t testing.TB, data []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// skippable is a zstd frame that decoders skip. zstd:chunked ends with two of them.
const skippable = "\x50\x2a\x4d\x18\x04\x00\x00\x00toc!"

func TestAddBlobReadsEveryForm(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 100_000) // more than the chunks in flight
	raw := pack(t, file("a", "1"), file("big", big), symlink("l", "a"))
	want := []string{"a file 1", "big file " + big, "l -> a"}
	half := len(raw) / 2
	for _, c := range []struct {
		name, mediaType string
		blob            []byte
	}{
		{"tar", ocispec.MediaTypeImageLayer, raw},
		{"gzip", ocispec.MediaTypeImageLayerGzip, gzipped(t, raw)},
		{"gzip in members", ocispec.MediaTypeImageLayerGzip,
			append(gzipped(t, raw[:half]), gzipped(t, raw[half:])...)},
		{"docker", mediaTypeDocker, gzipped(t, raw)},
		{"zstd", ocispec.MediaTypeImageLayerZstd, zstded(t, raw)},
		{"zstd:chunked", ocispec.MediaTypeImageLayerZstd,
			slices.Concat(zstded(t, raw[:half]), zstded(t, raw[half:]), []byte(skippable+skippable))},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree, content := NewTree(), objects{}
			if err := tree.AddBlob(bytes.NewReader(c.blob), c.mediaType, digest.FromBytes(raw),
				content.put, SkipNote); err != nil {
				t.Fatal(err)
			}
			if got := list(tree, content); !slices.Equal(got, want) {
				t.Errorf("got %d entries: %.200q", len(got), got)
			}
		})
	}
}

// tail returns data and then an error, as a source does for a wrong digest.
type tail struct {
	r   io.Reader
	err error
}

func (r *tail) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err == io.EOF {
		err = r.err
	}
	return n, err
}

var errSource = errors.New("connection lost")

func TestAddBlobRefuses(t *testing.T) {
	raw := pack(t, file("a", strings.Repeat("content ", 100_000)))
	packed := zstded(t, raw)
	hostile := pack(t, file("../a", "1"))
	good := digest.FromBytes(raw)
	tampered := bytes.Clone(packed)
	tampered[len(tampered)/2] ^= 0xff
	for _, c := range []struct {
		name, mediaType string
		blob            io.Reader
		diffID          digest.Digest
		want            error
	}{
		{"wrong diff_id", ocispec.MediaTypeImageLayerZstd, bytes.NewReader(packed), digest.FromString("x"),
			verify.ErrDigest},
		{"bytes after the archive", ocispec.MediaTypeImageLayer, bytes.NewReader(append(bytes.Clone(raw), "more"...)),
			good, verify.ErrDigest},
		{"unknown type", "application/vnd.oci.image.layer.v1.tar+xz", bytes.NewReader(packed), good, ErrLayer},
		{"not gzip", ocispec.MediaTypeImageLayerGzip, bytes.NewReader(packed), good, ErrLayer},
		{"cut by its publisher", ocispec.MediaTypeImageLayerZstd, bytes.NewReader(packed[:len(packed)-9]), good,
			ErrLayer},
		{"gzip cut by its publisher", ocispec.MediaTypeImageLayerGzip, bytes.NewReader(gzipped(t, raw)[:900]), good,
			ErrLayer},
		{"archive cut by its publisher", ocispec.MediaTypeImageLayer, bytes.NewReader(raw[:5000]),
			digest.FromBytes(raw[:5000]), ErrLayer},
		{"hostile", ocispec.MediaTypeImageLayerGzip, bytes.NewReader(gzipped(t, hostile)), digest.FromBytes(hostile),
			ErrLayer},
		// The error of the source takes precedence over those about a broken stream.
		{"tampered", ocispec.MediaTypeImageLayerZstd, &tail{bytes.NewReader(tampered), verify.ErrDigest}, good,
			verify.ErrDigest},
		{"tampered and hostile", ocispec.MediaTypeImageLayerGzip,
			&tail{bytes.NewReader(gzipped(t, hostile)), verify.ErrDigest}, good, verify.ErrDigest},
		{"tampered behind the end", ocispec.MediaTypeImageLayerZstd, &tail{bytes.NewReader(packed), verify.ErrDigest},
			good, verify.ErrDigest},
		{"connection lost", ocispec.MediaTypeImageLayerZstd, &tail{bytes.NewReader(packed[:len(packed)-9]), errSource},
			good, errSource},
		{"connection lost in the archive", ocispec.MediaTypeImageLayer, &tail{bytes.NewReader(raw[:5000]), errSource},
			good, errSource},
		{"connection lost at once", ocispec.MediaTypeImageLayerGzip, &tail{bytes.NewReader(nil), errSource}, good,
			errSource},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := NewTree().AddBlob(c.blob, c.mediaType, c.diffID, objects{}.put, SkipNote)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if c.want != ErrLayer && errors.Is(err, ErrLayer) {
				t.Errorf("blames the layer: %v", err)
			}
		})
	}
}

// TestBombs checks that a blob which unpacks to far more than any root is refused long before its end, with little
// memory.
func TestBombs(t *testing.T) {
	const frames, frame = 128, 64 << 20
	var header bytes.Buffer
	if err := tar.NewWriter(&header).WriteHeader(&tar.Header{Name: "bomb", Typeflag: tar.TypeReg, Mode: 0o644,
		Size: frames * frame}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		mediaType string
		compress  func(testing.TB, []byte) []byte
	}{
		"gzip": {ocispec.MediaTypeImageLayerGzip, gzipped},
		"zstd": {ocispec.MediaTypeImageLayerZstd, zstded},
	} {
		t.Run(name, func(t *testing.T) {
			// Both formats can be concatenated from several pieces.
			blob := append(c.compress(t, header.Bytes()), bytes.Repeat(c.compress(t, make([]byte, frame)), frames)...)
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			unpacked := int64(0)
			err := NewTree().AddBlob(bytes.NewReader(blob), c.mediaType, digest.FromString("any"),
				func(r io.Reader, _ int64) (fsverity.Digest, error) {
					n, err := io.Copy(io.Discard, r)
					unpacked = n
					return fsverity.Digest{}, err
				}, SkipNote)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "times its size") {
				t.Errorf("got %v, want ErrLimit", err)
			}
			if unpacked == 0 || unpacked > 2*freeStream {
				t.Errorf("%d bytes were unpacked before it was noticed", unpacked)
			}
			if grown := int64(after.Sys) - int64(before.Sys); grown > 64<<20 {
				t.Errorf("memory grew by %d MB", grown>>20)
			}
		})
	}
}

// TestTooManyFiles checks that a million tiny files are refused half-way, in less than 256 MB.
func TestTooManyFiles(t *testing.T) {
	r, w := io.Pipe()
	defer r.Close()
	go func() {
		tw := tar.NewWriter(w)
		for i := range 1_000_000 {
			name := fmt.Sprintf("usr/share/directory-%d/a-file-with-a-name-of-usual-length-%d", i/1000, i)
			if tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}) != nil {
				return
			}
		}
		w.CloseWithError(tw.Close())
	}()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tree := NewTree()
	err := tree.Add(r, objects{}.put)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrLimit) || tree.entries < maxEntries {
		t.Errorf("got %v after %d entries, want ErrLimit after %d", err, tree.entries, maxEntries)
	}
	if grown := int64(after.Sys) - int64(before.Sys); grown > 256<<20 {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
}

func TestAddBlobStopsWhenTheStoreFails(t *testing.T) {
	before := runtime.NumGoroutine()
	full := errors.New("disk full")
	raw := pack(t, file("a", strings.Repeat("content ", 1_000_000)), file("b", "1"))
	put := func(io.Reader, int64) (fsverity.Digest, error) { return fsverity.Digest{}, full }
	err := NewTree().AddBlob(bytes.NewReader(zstded(t, raw)), ocispec.MediaTypeImageLayerZstd, digest.FromBytes(raw),
		put, SkipNote)
	if err != full {
		t.Errorf("got %v, want %v", err, full)
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}

func FuzzAdd(f *testing.F) {
	seeds := [][]byte{
		pack(f, dir("d"), file("d/a", "1"), link("b", "d/a"), symlink("l", "d"), file("l/c", "2")),
		pack(f, file("d/.wh..wh..opq", ""), file(".wh.b", ""), file("x", "")),
		pack(f, file("a", "x").xattr("user.a", "b")),
	}
	for _, s := range seeds {
		if len(s) == 0 {
			f.Fatal("an empty seed")
		}
		f.Add(s)
	}
	lower := pack(f, dir("d"), file("d/e/f", "1"), file("b", "2"))
	f.Fuzz(func(t *testing.T, layer []byte) {
		tree := NewTree()
		if err := tree.Add(bytes.NewReader(lower), objects{}.put); err != nil {
			t.Fatal(err)
		}
		err := tree.Add(bytes.NewReader(layer), func(r io.Reader, size int64) (fsverity.Digest, error) {
			if size > 1<<20 {
				return fsverity.Digest{}, ErrLimit // a hole of gigabytes is valid, but slow
			}
			return objects{}.put(r, size)
		})
		if err != nil && !errors.Is(err, ErrLayer) {
			t.Errorf("%v is not %v", err, ErrLayer)
		}
		tree.Walk(func(path string, n *Inode) error {
			if len(path) > maxPath || strings.HasPrefix(path, "/") || strings.Contains("/"+path+"/", "/../") {
				t.Errorf("path %q came through", path)
			}
			return nil
		})
	})
}

// FuzzAddBlob reads layers in all compressed forms, including the table of contents of zstd:chunked, which is skipped.
func FuzzAddBlob(f *testing.F) {
	raw := pack(f, dir("d"), file("d/a", "1"))
	seeds := map[string][]byte{
		ocispec.MediaTypeImageLayer:     raw,
		ocispec.MediaTypeImageLayerGzip: gzipped(f, raw),
		ocispec.MediaTypeImageLayerZstd: append(zstded(f, raw), skippable...),
	}
	if len(seeds) == 0 {
		f.Fatal("the corpus is empty")
	}
	for mediaType, s := range seeds {
		f.Add(mediaType, s)
	}
	diff := digest.FromBytes(raw)
	f.Fuzz(func(t *testing.T, mediaType string, blob []byte) {
		tree := NewTree()
		err := tree.AddBlob(bytes.NewReader(blob), mediaType, diff,
			func(r io.Reader, size int64) (fsverity.Digest, error) {
				if size > 1<<20 {
					return fsverity.Digest{}, ErrLimit
				}
				return objects{}.put(r, size)
			}, SkipNote)
		if err != nil && !errors.Is(err, verify.ErrNotTrusted) {
			t.Errorf("%v has no class", err)
		}
		if err == nil && tree.Lookup("d/a") == nil {
			t.Error("accepted as the layer it is not")
		}
	})
}
