package etc

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// victim makes an /etc in which a user owns a directory, and a directory of root's that only root may read. The user's
// directory has a link into it, and files of the same names.
func victim(t *testing.T) (cur string) {
	t.Helper()
	dir := t.TempDir()
	cur = testtree.Files{"app/data/key": "his", "app/data/run": "#!his", "app/secret": "-> " + dir + "/secret",
		"app.conf": "root's"}.OnDisk(t, dir+"/cur")
	secret := testtree.Files{"key": "secret|600", "run": "#!root|755"}.OnDisk(t, dir+"/secret")
	for name, mode := range map[string]os.FileMode{secret: 0o700, secret + "/run": 0o755 | os.ModeSetuid} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"app", "app/data", "app/data/key", "app/data/run", "app/secret"} {
		if err := os.Lchown(filepath.Join(cur, name), testtree.Attacker, testtree.Attacker); err != nil {
			t.Fatal(err)
		}
	}
	return cur
}

// TestMergeWhileAUserExchangesFiles: nothing from outside gets into the new /etc, and nothing of a user becomes root's.
// With paths instead of descriptors, 18 files of root's were copied out in 40 rounds, and 6 files were set-id.
func TestMergeWhileAUserExchangesFiles(t *testing.T) {
	const rounds = 40
	cur := victim(t)
	next := testtree.Files{"app.conf": "image"}.OnDisk(t, t.TempDir()+"/next")
	times := testtree.Exchange(t, cur+"/app", "data", "secret")
	merged, stolen, raised := 0, 0, 0
	for range rounds {
		dst := filepath.Join(t.TempDir(), "etc")
		if _, err := Merge(Inputs{Old: next, Current: cur, Next: next}, dst); err != nil {
			t.Logf("no merge: %v", err)
			continue
		}
		merged++
		err := filepath.WalkDir(filepath.Join(dst, "app"), func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			st, err := d.Info()
			if err != nil {
				return err
			}
			if strings.HasPrefix(string(text), "secret") || string(text) == "#!root" {
				stolen++
			}
			if st.Mode()&os.ModeSetuid != 0 {
				raised++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d merges, %d exchanges: %d files of root's copied out, %d set-id", merged, rounds, times.Load(), stolen,
		raised)
	if merged < rounds/2 || times.Load() < rounds || stolen > 0 || raised > 0 {
		t.Error("the attack has won, or was none")
	}
}

// TestMergeIsBounded: what a user puts into a directory of his costs no time, is named if it is too much, and does not
// keep the host from the merge.
func TestMergeIsBounded(t *testing.T) {
	const hole, data = 1 << 40, "at the end"
	cur := testtree.Files{"app/app.conf": "1", "app/raised": "his", "app/x": "1", "other": "L"}.OnDisk(t,
		t.TempDir()+"/cur")
	old := testtree.Files{"app/app.conf": "1", "app/big": "1"}.OnDisk(t, t.TempDir()+"/old")
	app := filepath.Join(cur, "app")
	sparse, err := os.Create(filepath.Join(app, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = sparse.WriteAt([]byte(data), hole)
	err = errors.Join(err, sparse.Close(),
		os.WriteFile(filepath.Join(app, "big"), bytes.Repeat([]byte("x"), 257<<20), 0o644),
		os.Chmod(filepath.Join(app, "raised"), 0o755|os.ModeSetuid|os.ModeSetgid),
		os.Chown(app, testtree.Attacker, testtree.Attacker))
	if err != nil {
		t.Fatal(err)
	}
	leased := filepath.Join(app, "leased")
	err = errors.Join(os.WriteFile(leased, nil, 0o644), os.Chown(leased, testtree.Attacker, 0))
	holder, oerr := os.OpenFile(leased, os.O_WRONLY, 0)
	if err = errors.Join(err, oerr); err == nil {
		defer holder.Close()
		_, err = unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	}
	if err != nil {
		t.Fatal(err)
	}
	at, err := os.Open(app)
	for range 1500 {
		if err == nil {
			err = unix.Mkdirat(int(at.Fd()), "d", 0o755)
		}
		if err == nil {
			var fd int
			if fd, err = unix.Openat(int(at.Fd()), "d", unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
				at.Close()
				at = os.NewFile(uintptr(fd), "d")
			}
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	at.Close()
	dst := filepath.Join(t.TempDir(), "etc")
	start := time.Now()
	report, err := Merge(Inputs{Old: old, Current: cur, Next: old}, dst)
	if err != nil || time.Since(start) > time.Minute {
		t.Fatalf("after %v: %v", time.Since(start), err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dst, "app/sparse"), &st); err != nil || st.Size != hole+int64(len(data)) ||
		st.Blocks*512 > 1<<20 {
		t.Errorf("the sparse file has %d bytes, %d on the disk: %v", st.Size, st.Blocks*512, err)
	}
	if f, err := os.Open(filepath.Join(dst, "app/sparse")); err == nil {
		end := make([]byte, len(data))
		if _, err := f.ReadAt(end, hole); string(end) != data {
			t.Errorf("its end is %q, %v", end, err)
		}
		f.Close()
	}
	if text := read1(t, filepath.Join(dst, "app/big")); text != "1" {
		t.Errorf("the large file is not the image's: %d bytes", len(text))
	}
	if st, err := os.Stat(filepath.Join(dst, "app/raised")); err != nil || st.Mode() != 0o755 {
		t.Errorf("raised: %v, %v", st.Mode(), err)
	}
	if read1(t, filepath.Join(dst, "other")) != "L" || read1(t, filepath.Join(dst, "app/x")) != "1" {
		t.Error("something else is lost")
	}
	notes := strings.Join(report.Notes, "\n")
	for _, want := range []string{"app/big: not carried over: larger than", "app/raised: its set-id bits",
		"app/leased: not carried over: its owner holds a lease",
		"/d: not carried over: what is in it is below 64 directories"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note %q in %.2000q", want, notes)
		}
	}
}

// TestMergeWhileFilesChange: files that never stay the same do not keep the host from a merge. What a user changes all
// the time is left out and named.
func TestMergeWhileFilesChange(t *testing.T) {
	cur := testtree.Files{"app/log": "0", "root.conf": "0", "app/x": "1"}.OnDisk(t, t.TempDir()+"/cur")
	next := testtree.Files{"app.conf": "image"}.OnDisk(t, t.TempDir()+"/next")
	if err := os.Chown(filepath.Join(cur, "app"), testtree.Attacker, testtree.Attacker); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		var err error
		for i := 1; err == nil; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			for _, name := range []string{"app/log", "root.conf"} {
				err = errors.Join(err, os.WriteFile(filepath.Join(cur, name), []byte(strconv.Itoa(i)), 0o644))
			}
		}
		stopped <- err
	}()
	noted := 0
	for round := 0; round < 20 || noted == 0 && round < 1000; round++ { // it is noted in one of ten
		dst := filepath.Join(t.TempDir(), "etc")
		report, err := Merge(Inputs{Old: next, Current: cur, Next: next}, dst)
		if err != nil || read1(t, filepath.Join(dst, "app/x")) != "1" {
			t.Fatal(err)
		}
		if strings.Contains(strings.Join(report.Notes, "\n"), "app/log: not carried over") {
			noted++
		}
		if _, err := os.Stat(filepath.Join(dst, "root.conf")); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := <-stopped; err != nil || noted == 0 {
		t.Errorf("the user's file was left out %d times, %v", noted, err)
	}
}

// TestMergeWhileAGroupEnlargesAFile: a file of root's that a group can write in may be made too large at any moment. It
// is left out then.
func TestMergeWhileAGroupEnlargesAFile(t *testing.T) {
	cur := testtree.Files{"shared.conf": "1|664", "x": "1"}.OnDisk(t, t.TempDir()+"/cur")
	full := filepath.Join(cur, "shared.conf")
	if err := os.Chown(full, 0, testtree.Attacker); err != nil {
		t.Fatal(err)
	}
	d, err := listing.Read(cur)
	if err == nil {
		err = os.Truncate(full, 4<<40)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := outcome{paths: map[string]resultPath{}}
	for name, e := range d.Tree {
		out.paths[name] = resultPath{entry: e, side: current}
	}
	dst := filepath.Join(t.TempDir(), "etc")
	if err := out.fill(Inputs{Current: cur, Next: cur}, dst, true); err != nil {
		t.Fatal(err)
	}
	_, err = os.Lstat(filepath.Join(dst, "shared.conf"))
	if want := "shared.conf: not carried over"; !errors.Is(err, fs.ErrNotExist) || len(out.report.Notes) != 1 ||
		!strings.HasPrefix(out.report.Notes[0], want) || read1(t, filepath.Join(dst, "x")) != "1" {
		t.Errorf("%v, notes %q, want %q", err, out.report.Notes, want)
	}
}
