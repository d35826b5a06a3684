package difference

import (
	"slices"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestChangedSince: what changed in a root is listed, and not what the merge wrote.
func TestChangedSince(t *testing.T) {
	dir := testtree.Make(t, "hostname", "ssh/sshd_config", "passwd")
	time.Sleep(20 * time.Millisecond) // the clock of files is coarse
	at := time.Now()
	time.Sleep(20 * time.Millisecond)
	testtree.File(t, dir, "ssh/sshd_config", "Port 2222\n")
	testtree.File(t, dir, "passwd", "")
	testtree.File(t, dir, "new", "")
	if got, err := ChangedSince(dir, at); err != nil || !slices.Equal(got, []string{"new", "ssh/sshd_config"}) {
		t.Errorf("changed: %v, %v", got, err)
	}
}
