package packing

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

// FuzzTarball: what is packed from a tar has each name once, all of them below the root, and packing it again changes
// nothing.
func FuzzTarball(f *testing.F) {
	pack := func(headers ...tar.Header) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, h := range headers {
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
			if _, err := w.Write(make([]byte, h.Size)); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return out.Bytes()
	}
	file := tar.Header{Typeflag: tar.TypeReg, Name: "./usr/lib/systemd/systemd", Size: 30, Mode: 0o755}
	f.Add(pack(tar.Header{Typeflag: tar.TypeDir, Name: "./"}, file))
	f.Add(pack(file, tar.Header{Typeflag: tar.TypeLink, Name: "../../a", Linkname: "/usr/../usr/lib/systemd/systemd"}))
	f.Add(pack(tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "../..", Format: tar.FormatPAX,
		ModTime: time.Unix(1, 5), PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y", "comment": "z"}}))
	f.Add(pack(tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Devmajor: 1, Devminor: 3}, file)[:1000])
	epoch := time.Unix(1_000_000, 0)
	rewrite := func(text []byte) ([]byte, error) {
		var out bytes.Buffer
		err := (&tarball{heads: map[string][]byte{}}).rewrite(bytes.NewReader(text), &out, &epoch)
		return out.Bytes(), err
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		out, err := rewrite(text)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for r := tar.NewReader(bytes.NewReader(out)); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("what is packed cannot be read: %v", err)
			}
			if seen[h.Name] || strings.HasPrefix(h.Name, "/") || strings.HasPrefix(h.Name, "..") || h.ModTime.After(epoch) {
				t.Errorf("%+v is packed", h)
			}
			seen[h.Name] = true
		}
		if again, err := rewrite(out); err != nil || !bytes.Equal(again, out) {
			t.Errorf("packed again, %d bytes became %d (%v)", len(out), len(again), err)
		}
	})
}
