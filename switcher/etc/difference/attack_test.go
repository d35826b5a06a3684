package difference

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestTakeWhileAUserExchangesDirectories: what is taken from the image into a directory of a user replaces nothing
// elsewhere. With paths instead of descriptors, root's directory was changed within 7, 50 and 102 rounds.
func TestTakeWhileAUserExchangesDirectories(t *testing.T) {
	const rounds = 200
	dir := t.TempDir()
	image := files{"app/data/key": "image", "passwd": "", "group": ""}.OnDisk(t, dir+"/image")
	secret := files{"key": "secret|600"}.OnDisk(t, dir+"/secret")
	here := files{"app/data/": "", "app/link": "-> " + secret, "passwd": "", "group": ""}.OnDisk(t, dir+"/etc")
	for _, name := range []string{"app", "app/data", "app/link"} {
		if err := os.Lchown(filepath.Join(here, name), testtree.Attacker, testtree.Attacker); err != nil {
			t.Fatal(err)
		}
	}
	times := testtree.Exchange(t, filepath.Join(here, "app"), "data", "link")
	taken := 0
	for i := range rounds {
		_, err := Take(image, here, "app/data/key", time.Unix(int64(i), 0))
		switch {
		case err == nil:
			taken++
		case !errors.Is(err, ErrNotTaken) && !errors.Is(err, fs.ErrNotExist):
			t.Log(err)
		}
		names, err := os.ReadDir(secret)
		text, rerr := os.ReadFile(filepath.Join(secret, "key"))
		if err != nil || rerr != nil || len(names) != 1 || string(text) != "secret" {
			t.Fatalf("round %d, %d exchanges: root's directory has %v, the file %q", i, times.Load(), names, text)
		}
		_ = os.Remove(filepath.Join(here, "app/data/key")) // if it is not root's at this moment
		if err := os.WriteFile(filepath.Join(secret, "key"), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d rounds took the file, %d exchanges", taken, rounds, times.Load())
	if times.Load() < rounds {
		t.Error("there was no attack")
	}
}
