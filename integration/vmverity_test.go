//go:build lab && vm

package integration

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// flipOnDisk flips a bit of a file on the disk, behind the file system, and forgets what was read of it before. The
// ioctl 1 is FIBMAP: which block of the device has the file's first one.
const flipOnDisk = `device=$(findmnt -nvo SOURCE -T "$1"); sync
block=$(perl -e 'open F, "<", shift or die; $b = pack "i", 0; ioctl F, shift, $b or die; print unpack "i", $b' "$1" 1)
test "$block" -gt 0; test -b "$device"
at=$((block * $(stat -fc %S "$1") + 100))
byte=$(od -An -tu1 -j$at -N1 "$device")
printf "\\$(printf %o $((byte ^ 1)))" | dd of="$device" bs=1 seek=$at conv=notrunc,fsync status=none
echo 3 > /proc/sys/vm/drop_caches`

type damage struct{ Path string }

// TestVMVerity tests integrity at rest on ext4 with fs-verity: everything that the running root consists of is verified
// by the kernel at each read, also what was staged without fs-verity. A bit that flips on the disk is an I/O error,
// which fsck finds and repairs.
func TestVMVerity(t *testing.T) {
	beside(t, lab.QEMU)
	s := newPublisher(t)
	s.publish("1", "os/server:stable")
	s.boot(lab.Options{Name: "vmverity", Kind: lab.QEMU}, func(root string) error {
		return s.stageAhead(root, "os/server:stable") // without fs-verity: apply adds it
	})
	h, ctx := s.host, t.Context()
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	if mounts := h.Must(t, "cat", "/proc/self/mountinfo"); !strings.Contains(mounts, "verity=require") {
		t.Errorf("the root is not mounted with verity=require:\n%s", mounts)
	}
	fsck := func(code int, options ...string) (report struct {
		Objects, Verified int
		Damage            []damage
	}) {
		t.Helper()
		r := h.Run(ctx, append([]string{"updatectl", "--output", "json", "fsck"}, options...)...)
		if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil || r.Code != code {
			t.Fatalf("fsck %v: want exit code %d: %s", options, code, r)
		}
		return report
	}
	if r := fsck(exitDone); r.Objects == 0 || r.Verified != r.Objects {
		t.Errorf("the kernel verifies %d of %d objects", r.Verified, r.Objects)
	}
	store := "/var/lib/updatectl"
	object := h.Must(t, "sh", "-c", "find "+store+"/objects -type f -size +100k -size -200k | sort | head -n 1")
	var damaged []string
	for _, path := range []string{object, store + "/roots/" + s.roots["1"] + "/root.cfs"} {
		if r := h.Sh(ctx, "echo x >> "+path); r.Code == 0 {
			t.Errorf("%s can be written", path)
		}
		damaged = append(damaged, path)
	}

	s.switches("rollback", "host")
	s.settled()
	repaired := func(path string) {
		t.Helper()
		found := fsck(exitNotTrusted).Damage
		if !slices.ContainsFunc(found, func(d damage) bool { return strings.HasPrefix(path, d.Path) }) {
			t.Errorf("fsck does not find %s: %+v", path, found)
		}
		fsck(exitDone, "--repair")
		if r := fsck(exitDone); r.Verified != r.Objects {
			t.Errorf("after the repair of %s, the kernel verifies %d of %d objects", path, r.Verified, r.Objects)
		}
	}
	for _, path := range damaged { // one at a time: the repair of one must not need damage of the other
		h.Must(t, "sh", "-ec", flipOnDisk, "flip", path)
		if r := h.Run(ctx, "cat", path); r.Code == 0 || !strings.Contains(r.Stderr, "Input/output error") {
			t.Errorf("a byte of %s was flipped on the disk, and the file can be read: exit code %d, %s", path, r.Code, r.Stderr)
		}
		repaired(path)
	}
	h.Must(t, "sh", "-ec", `cp "$1" "$1.new" && mv "$1.new" "$1"`, "copy", object) // right content, without fs-verity
	repaired(object)
	s.switches("rollback", s.roots["1"])
	s.runs(s.roots["1"], "1")
}
