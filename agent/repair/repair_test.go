package repair

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/switcher/facts"
)

// TestInterruptedFsck: an interrupted check is an error, and not an answer that names a part of the damage. Nothing is
// repaired by it.
func TestInterruptedFsck(t *testing.T) {
	h := hosttest.New(t)
	root, err := h.Machine.Trees.Root(hosttest.Root(t, h))
	if err != nil {
		t.Fatal(err)
	}
	objects := filepath.Join(filepath.Dir(filepath.Dir(root.Dir)), "objects")
	stranger := filepath.Join(objects, "stranger") // is found before the objects are read
	shard := filepath.Join(objects, "00")
	object := filepath.Join(shard, "00000000000000000000000000000000000000000000000000000000000000")
	for _, err := range []error{
		os.MkdirAll(shard, 0o700), os.WriteFile(stranger, nil, 0o600), os.WriteFile(object, nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	k := Fsck{Host: h}
	if _, err := k.Look(t.Context()); !errors.Is(err, ErrDamage) {
		t.Fatalf("got %v, want %v", err, ErrDamage)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Look(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrDamage) {
		t.Errorf("Look: %v", err)
	}
	if _, err := k.Repair(ctx, facts.Facts{}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrDamage) {
		t.Errorf("Repair: %v", err)
	}
	if _, err := os.Lstat(stranger); err != nil {
		t.Error(err)
	}
}
