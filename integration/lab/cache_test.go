package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestInterruptedBuildIsNeverUsed(t *testing.T) {
	t.Setenv("UPDATECTL_LAB_CACHE", t.TempDir())
	pulled := errors.New("plug pulled")
	builds := 0
	half := func(_ context.Context, path string) error {
		builds++
		if err := writeFile(filepath.Join(path, "first half"), ""); err != nil {
			return err
		}
		return pulled
	}
	whole := func(_ context.Context, path string) error {
		builds++
		return writeFile(filepath.Join(path, "all"), "")
	}
	if _, err := keep(t.Context(), "thing", "a test", "recipe", half); !errors.Is(err, pulled) {
		t.Fatalf("got %v, want the build's own error", err)
	}
	path, err := keep(t.Context(), "thing", "a test", "recipe", whole)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, "first half")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second build began with what the first left: %v", err)
	}
	again, err := keep(t.Context(), "thing", "a test", "recipe", whole)
	if err != nil || again != path || builds != 2 {
		t.Errorf("asked again: got %s (%v) after %d builds, want %s after 2", again, err, builds, path)
	}
	other, err := keep(t.Context(), "thing", "a test", "other recipe", whole)
	if err != nil || other == path {
		t.Errorf("another recipe got %s (%v), want a place of its own", other, err)
	}
}
