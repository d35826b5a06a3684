package store

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/updatectl/updatectl/image/inventory"
)

// TestWriteInventory: only a whole one gets its name, and one that is too large is no error.
func TestWriteInventory(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		end, want error
		kept      bool
	}{
		"whole":     {nil, nil, true},
		"too large": {inventory.ErrTooLarge, nil, false},
		"broken":    {broken, broken, false},
	} {
		g, err := open(t).Begin(id(1))
		if err != nil {
			t.Fatal(err)
		}
		err = g.WriteInventory("layer-x", func(w io.Writer) error {
			_, err := w.Write([]byte("text"))
			return errors.Join(err, c.end)
		})
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		content, err := os.ReadFile(g.path(rootsDir, "layer-x"))
		if kept := err == nil; kept != c.kept || kept && string(content) != "text" {
			t.Errorf("%s: %q, %v", name, content, err)
		}
		if _, err := os.Lstat(g.path("layer-x")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the unfinished file: %v", name, err)
		}
	}
}

// TestFsckEndsWithItsContext before it reads the inventories of roots.
func TestFsckEndsWithItsContext(t *testing.T) {
	s := open(t)
	c := fsck{store: s, listed: map[uint64]bool{}}
	if err := os.MkdirAll(s.path(rootsDir, id(1)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(rootsDir, id(1), "layer-x"), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.inventories(ctx, id(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
