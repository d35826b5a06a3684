package difference

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestChangedWhileFilesVanish: other programs make and remove files in the /etc that is looked at.
func TestChangedWhileFilesVanish(t *testing.T) {
	dir := testtree.Make(t, "a/", "b/", "hostname")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for i := range 20 {
				_ = os.MkdirAll(fmt.Sprintf("%s/a/%d/c", dir, i), 0o755)
				_ = os.WriteFile(fmt.Sprintf("%s/b/%d", dir, i), nil, 0o644)
			}
			_ = errors.Join(os.RemoveAll(dir+"/a"), os.RemoveAll(dir+"/b"))
		}
	}()
	for range 300 {
		if got, err := ChangedSince(dir, time.Time{}); err != nil || !slices.Contains(got, "hostname") {
			t.Errorf("changed: %v, %v", got, err)
			break
		}
	}
	close(stop)
	<-stopped
	if _, err := ChangedSince(dir+"/none", time.Time{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no /etc: %v", err)
	}
}

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
