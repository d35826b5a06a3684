package origin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestCheckOwners: each path that a user can make lead elsewhere is named; [owned.Redirect] has the rule.
func TestCheckOwners(t *testing.T) {
	root := testtree.Make(t, "srv/data/x", "home/u/data/x")
	for _, name := range []string{"home/u", "srv/data"} {
		if err := os.Lchown(filepath.Join(root, name), testtree.Attacker, testtree.Attacker); err != nil {
			t.Fatal(err)
		}
	}
	if err := CheckOwners(root, []string{"/srv/data", "/home/u", "/srv/missing/x"}); err != nil {
		t.Error(err)
	}
	err := CheckOwners(root, []string{"/srv", "/home/u/data", "/srv/data/x"})
	for _, want := range []string{
		"/home/u/data cannot be kept: /home/u, which it is in, belongs to user 4242",
		"/srv/data/x cannot be kept: /srv/data, which it is in, belongs to user 4242",
	} {
		if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
