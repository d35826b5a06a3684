package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzInfo: what is read from a damaged image.json is an ErrDamaged or one of another schema, and what is accepted is
// the same when it was written and read.
func FuzzInfo(f *testing.F) {
	good, err := Info{Schema: Schema, Reference: "r", Missing: []string{"dev"}, Size: 7}.encode()
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range [][]byte{good, good[:len(good)-3], bytes.Replace(good, []byte("dev"), []byte("dew"), 1),
		[]byte(`{"schema":"updatectl.image/v1","new_bytes":1}`), []byte(`{"schema":"x/v2","size":1}`), []byte("null"), nil} {
		f.Add(text)
	}
	file := filepath.Join(f.TempDir(), "image.json")
	read := func(t *testing.T, text []byte) (Info, error) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return readInfo(file)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		i, err := read(t, text)
		if err != nil {
			var other struct{ Schema string }
			if !errors.Is(err, ErrDamaged) && (json.Unmarshal(text, &other) != nil || other.Schema == Schema) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		written, err := i.encode()
		if err != nil {
			return // a time that JSON cannot have
		}
		again, err := read(t, written)
		if err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		if twice, err := again.encode(); err != nil || !bytes.Equal(twice, written) {
			t.Errorf("%s became %s (%v)", written, twice, err)
		}
	})
}
