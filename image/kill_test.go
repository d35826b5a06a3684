package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/store"
)

// childEnv makes the test binary only stage an image. It has the layout and the store, separated by a colon.
const childEnv = "UPDATECTL_TEST_STAGE"

func TestMain(m *testing.M) {
	if where := os.Getenv(childEnv); where != "" {
		layout, dir, _ := strings.Cut(where, ":")
		if err := stageIn(layout, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// stageIn does what the agent does when it starts, and then for `stage`.
func stageIn(layout, dir string) error {
	st, err := store.Open(dir)
	if err != nil {
		return err
	}
	if err := st.Sweep(); err != nil {
		return err
	}
	b := &builder{t: &testing.T{}, dir: layout}
	d, err := b.source().Resolve(context.Background())
	if err != nil {
		return err
	}
	img, err := b.open(d)
	if err != nil {
		return err
	}
	_, err = Stage(context.Background(), st, b.source(), img, "test", nil)
	return err
}

// TestStageKilledAtAnyMoment kills staging processes at moments spread over their whole run. Then each root in the
// store is complete, and the next run succeeds.
func TestStageKilledAtAnyMoment(t *testing.T) {
	b := newBuilder(t)
	entries := bootable()
	for i := range 1000 {
		entries = append(entries, reg(fmt.Sprintf("data/%d", i), strings.Repeat(fmt.Sprint(i), 500)))
	}
	entries = append(entries, reg("large", strings.Repeat("large", 500_000)))
	b.layer(ocispec.MediaTypeImageLayerZstd, packLayer(entries...))
	b.manifest()
	dir := tmpfs(t, "size=200m")

	start := time.Now()
	if err := child(b.dir, dir).Run(); err != nil {
		t.Fatalf("undisturbed: %v", err)
	}
	whole := time.Since(start)
	st := must(store.Open(dir))
	before, after := 0, 0
	const rounds = 32
	// The duration of a run depends on the load of the machine, so the moments are adjusted: later after a kill in
	// time, earlier after one that came too late.
	for limit := whole; before+after < rounds; {
		if _, err := st.GC(nil, nil); err != nil {
			t.Fatal(err)
		}
		c := child(b.dir, dir)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(limit/4 + rand.N(limit))
		c.Process.Kill()
		c.Wait()
		if checkStore(t, st) == 0 {
			before++
			limit = limit * 11 / 10
		} else {
			after++
			limit = limit * 8 / 10
		}
	}
	t.Logf("%d times killed before the root was there, %d times after (%v for a whole run)", before, after, whole)
	if before < rounds/8 {
		t.Errorf("only %d of %d processes were killed while they staged", before, rounds)
	}
	if err := child(b.dir, dir).Run(); err != nil {
		t.Fatalf("after all that: %v", err)
	}
	if checkStore(t, st) != 1 {
		t.Error("no root in the end")
	}
	if left := must(os.ReadDir(filepath.Join(dir, "staging"))); len(left) != 0 {
		t.Errorf("left in staging: %v", left)
	}
}

func child(layout, dir string) *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), childEnv+"="+layout+":"+dir)
	c.Stderr = os.Stderr
	return c
}

// checkStore checks every root and every object, and returns the number of roots.
func checkStore(t *testing.T, st *store.Store) int {
	t.Helper()
	have := map[fsverity.Digest]bool{}
	err := filepath.WalkDir(st.ObjectsDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		sum := fsverity.Sum(must(os.ReadFile(path)))
		if !strings.HasSuffix(path, "/"+composefs.ObjectPath(sum)) {
			t.Errorf("%s has digest %s", path, sum)
		}
		have[sum] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	roots, err := st.Roots()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roots {
		f := must(os.Open(r.CFS()))
		defer f.Close()
		if d, err := composefs.Digest(f); err != nil || d != r.Info.RootDigest {
			t.Errorf("root %s has digest %s (%v), not %s", r.ID, d, err, r.Info.RootDigest)
		}
		if e, err := r.Evidence(); err != nil || len(e.Chain) == 0 || string(e.Chain[len(e.Chain)-1].Content) == "" {
			t.Errorf("root %s has evidence %+v, %v", r.ID, e, err)
		}
		err := composefs.Objects(f, func(d fsverity.Digest) {
			if !have[d] {
				t.Errorf("root %s lacks object %s", r.ID, d)
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
	return len(roots)
}

// tmpfs mounts a file system for a store.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount -t tmpfs -o %s: %v", options, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("umount %s: %v", dir, err)
		}
	})
	return dir
}

// TestStageOnAFullDisk runs out of blocks and of inodes, in small and in large objects.
func TestStageOnAFullDisk(t *testing.T) {
	small, large := newBuilder(t), newBuilder(t)
	entries := bootable()
	for i := range 500 {
		entries = append(entries, reg(fmt.Sprintf("data/%d", i), strings.Repeat(fmt.Sprint(i), 500)))
	}
	small.layer(ocispec.MediaTypeImageLayerZstd, packLayer(entries...))
	large.layer(ocispec.MediaTypeImageLayerZstd,
		packLayer(append(bootable(), reg("large", strings.Repeat("large", 1_000_000)))...))
	for _, c := range []struct {
		name, options string
		b             *builder
	}{
		{"small files", "size=500k", small},
		{"large file", "size=3m", large},
		{"inodes", "size=100m,nr_inodes=300", small},
		{"no inode for the root", "size=100m,nr_inodes=12", large},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tmpfs(t, c.options)
			st, err := store.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			img, err := c.b.open(c.b.manifest())
			if err != nil {
				t.Fatal(err)
			}
			_, err = Stage(context.Background(), st, c.b.source(), img, "", nil)
			if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "of layers read") {
				t.Errorf("got %v, want %v", err, ErrNoSpace)
			}
			nothingVisible(t, st)
			// The administrator makes room, and staging succeeds.
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=100m,nr_inodes=10000"); err != nil {
				t.Fatal(err)
			}
			if _, err := Stage(context.Background(), st, c.b.source(), img, "", nil); err != nil {
				t.Errorf("with room: %v", err)
			}
			checkStore(t, st)
		})
	}
}
