//go:build lab && vm

package integration

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// flipOnDisk changes a byte of a file below the file system, as a failing disk does: in the block with the byte.
const flipOnDisk = `sync
block=$(filefrag -b4096 -v "$1" | awk '$1 == "0:" { sub(/\.\..*/, "", $4); print $4 }')
old=$(dd if=/dev/vda bs=4096 skip="$block" count=1 status=none | head -c 1 | od -An -tu1)
printf "\\$(printf %o $((old ^ 1)))" | dd of=/dev/vda bs=1 seek=$((block * 4096)) conv=notrunc,fsync status=none
echo 3 > /proc/sys/vm/drop_caches`

// TestVMVerity tests integrity at rest on ext4 with fs-verity: everything that the running root consists of is verified
// by the kernel at each read; damage below the file system is an I/O error, fsck names it, and --repair repairs it.
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
		Damage            []struct{ Path string }
	}) {
		t.Helper()
		r := h.Run(ctx, append([]string{"updatectl", "--output", "json", "fsck"}, options...)...)
		if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil || r.Code != code {
			t.Fatalf("fsck %v: want exit code %d: %s", options, code, r)
		}
		return report
	}
	if r := fsck(0); r.Objects == 0 || r.Verified != r.Objects {
		t.Errorf("the kernel verifies %d of %d objects", r.Verified, r.Objects)
	}
	store := "/var/lib/updatectl"
	object := h.Must(t, "sh", "-c", "find "+store+"/objects -type f -size +100k -size -200k | sort | head -n 1")
	for _, path := range []string{object, store + "/roots/" + s.roots["1"] + "/root.cfs"} {
		if r := h.Sh(ctx, "echo x >> "+path); r.Code == 0 {
			t.Errorf("%s can be written", path)
		}
	}
	h.Must(t, "sh", "-ec", flipOnDisk, "sh", object)
	if r := h.Run(ctx, "cat", object); r.Code == 0 || !strings.Contains(r.Stderr, "Input/output error") {
		t.Errorf("reading a damaged object: exit code %d, %s", r.Code, r.Stderr)
	}
	if r := fsck(1); len(r.Damage) != 1 || r.Damage[0].Path != object {
		t.Errorf("fsck found %+v, want %s", r.Damage, object)
	}
	fsck(0, "--repair")
	h.Must(t, "sh", "-c", "cat "+object+" > /dev/null")
	if r := fsck(0); r.Verified != r.Objects {
		t.Errorf("after the repair, the kernel verifies %d of %d objects", r.Verified, r.Objects)
	}
}
