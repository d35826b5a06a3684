package store

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRoom(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for name, c := range map[string]struct {
		now  room
		need uint64
		want string
	}{
		"enough":               {room{100 * gib, 50 * gib, 1e6, 1e5}, gib, ""},
		"just enough":          {room{100 * gib, gib + 256*mib, 1e6, 1e5}, gib, ""},
		"not for the services": {room{100 * gib, gib + 255*mib, 1e6, 1e5}, gib, "at least 1.074GB are needed"},
		"a small disk":         {room{gib, 21 * mib, 1e6, 1e5}, 0, ""},
		"a small, full disk":   {room{gib, 20 * mib, 1e6, 1e5}, 0, "20.97MB are free, and 21.47MB are left"},
		"full":                 {room{100 * gib, 0, 1e6, 1e5}, 0, "0B are free"},
		"no inodes":            {room{100 * gib, 50 * gib, 1e6, 2047}, 0, "2047 inodes are free"},
		"few inodes":           {room{100 * gib, 50 * gib, 100, 2}, 0, ""},
		"inodes as needed":     {room{100 * gib, 50 * gib, 0, 0}, gib, ""},
	} {
		if got := c.now.lacks(c.need); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestStagingLeavesRoom: staging stops while the services of the host still have space and inodes.
func TestStagingLeavesRoom(t *testing.T) {
	for name, options := range map[string]string{"bytes": "size=200m", "inodes": "size=200m,nr_inodes=8000"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			s, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			g, err := s.Begin("sha256-" + strings.Repeat("0", 64))
			if err != nil {
				t.Fatal(err)
			}
			size := map[string]int{"bytes": 3 << 20, "inodes": 8}[name]
			data := make([]byte, size)
			random := rand.NewChaCha8([32]byte{})
			for err == nil {
				_, _ = random.Read(data)
				_, err = g.Put(bytes.NewReader(data), int64(size))
			}
			var st unix.Statfs_t
			if ferr := unix.Statfs(dir, &st); ferr != nil {
				t.Fatal(ferr)
			}
			if !errors.Is(err, ErrNoSpace) || errors.Is(err, unix.ENOSPC) || st.Bavail == 0 || st.Ffree == 0 {
				t.Errorf("staging ended with %v, and %d blocks and %d inodes free", err, st.Bavail, st.Ffree)
			}
			if err := g.Abort(); err != nil {
				t.Error(err)
			}
			if err := s.CheckRoom(0); err != nil {
				t.Errorf("after it was given up: %v", err)
			}
		})
	}
}
