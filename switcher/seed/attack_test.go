package seed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestSeedWhileAUserExchangesDirectories: what is seeded into a directory of a user changes nothing elsewhere. With
// predictable names and paths instead of descriptors, files of root's were opened in 3 to 7 of 40 rounds, and in 11 to
// 32, nothing was seeded.
func TestSeedWhileAUserExchangesDirectories(t *testing.T) {
	const rounds, files = 40, 40
	image, host, secret := t.TempDir(), t.TempDir(), t.TempDir()
	for i := range files {
		testtree.File(t, image, fmt.Sprintf("app/data/%d", i), "")
		testtree.File(t, secret, fmt.Sprintf("%d", i), "secret")
	}
	app := filepath.Join(host, "app")
	testtree.File(t, host, "app/his", "")
	for _, dir := range []string{filepath.Dir(host), host, app} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(app, testtree.Attacker, testtree.Attacker); err != nil {
		t.Fatal(err)
	}
	times := testtree.ExchangeNew(t, app, ".updatectl-seed-", "link")
	failed, opened := 0, 0
	for range rounds {
		if err := os.Symlink(secret, filepath.Join(app, "link")); err != nil {
			t.Fatal(err)
		}
		for i := range files {
			if err := os.Chmod(filepath.Join(secret, fmt.Sprint(i)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Missing(image, host, copies.Owners{}, nil); err != nil {
			failed++
			t.Log(err)
		}
		for i := range files {
			if st, err := os.Lstat(filepath.Join(secret, fmt.Sprint(i))); err != nil || st.Mode() != 0o600 {
				opened++
				break
			}
		}
		names, err := os.ReadDir(app)
		for _, n := range names {
			err = errors.Join(err, os.RemoveAll(filepath.Join(app, n.Name())))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d rounds, %d exchanges, %d failed: files of root's were opened in %d", rounds, times.Load(), failed, opened)
	if times.Load() == 0 || failed > 0 || opened > 0 {
		t.Error("the attack has won, or was none")
	}
}
