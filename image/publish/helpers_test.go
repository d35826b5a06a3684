package publish

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"

	"github.com/updatectl/updatectl/image/packing"
)

var longAgo = time.Date(2020, 2, 3, 4, 5, 6, 789, time.UTC)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// makeTree writes a small root: an os-release and the init of an arm64 machine.
func makeTree(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for name, text := range map[string]string{
		"usr/lib/os-release":      "ID=test\n",
		"usr/lib/systemd/systemd": "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\xb7\x00 and more",
	} {
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		check(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o755))
	}
	return root
}

// pack makes an image of a tree.
func pack(t *testing.T, r packing.Recipe) *packing.Packed {
	t.Helper()
	r.Tag = "test"
	if r.Compression == "" {
		r.Compression = "zstd"
	}
	p, err := packing.Pack(context.Background(), r)
	check(t, err)
	return p
}

// putManifest writes a manifest or an index into a layout, under a tag.
func putManifest(t *testing.T, layout, tag, mediaType string, v any) {
	t.Helper()
	ctx := context.Background()
	store, err := oci.New(layout)
	check(t, err)
	data, err := json.Marshal(v)
	check(t, err)
	d, err := oras.PushBytes(ctx, store, mediaType, data)
	check(t, err)
	check(t, store.Tag(ctx, d, tag))
}
