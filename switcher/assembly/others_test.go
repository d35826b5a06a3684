package assembly

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestCheckOwners: a path that a user can make lead elsewhere is refused, with what to do.
func TestCheckOwners(t *testing.T) {
	root := testtree.Files{"srv/data/x": "", "home/u/data/x": "", "home/u/links/x": "", "var/tmp/x/y": "",
		"var/tmp/root/y": "",
		"srv/theirs":     "-> /srv/data", "srv/ours": "-> data", "srv/over": "-> /home/u/data", "srv/loop": "-> loop",
	}.OnDisk(t, t.TempDir())
	for _, name := range []string{"home/u", "srv/data", "srv/theirs", "var/tmp/x"} {
		if err := os.Lchown(filepath.Join(root, name), testtree.Attacker, testtree.Attacker); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "var/tmp"), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{
		"/srv/data":      "", // the directory itself may be a user's
		"/srv/ours":      "",
		"/srv/missing/x": "",
		"/home/u":        "",
		"/var/tmp":       "",
		"/home/u/data":   "/home/u/data cannot be kept: /home/u, which it is in, belongs to user 4242",
		"/home/u/new":    "belongs to user 4242",
		"/srv/data/x":    "/srv/data, which it is in, belongs to user 4242",
		"/srv/theirs":    "/srv/theirs is a link of user 4242",
		"/srv/ours/x":    "/srv/data, which it is in, belongs to user 4242",
		"/srv/over":      "/home/u, which it is in, belongs to user 4242",
		"/var/tmp/x":     "everybody can write in /var/tmp",
		"/var/tmp/new":   "everybody can write in /var/tmp",
		"/var/tmp/root":  "", // the directory is sticky
		"/srv/loop":      "too many levels",
	} {
		err := CheckOwners(root, []string{"/srv", p})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", p, err, want)
		}
		if err != nil && p != "/srv/loop" && !errors.Is(err, ErrState) {
			t.Errorf("%s: %v is no ErrState", p, err)
		}
	}
}
