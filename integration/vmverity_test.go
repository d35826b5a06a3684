//go:build lab && vm

package integration

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestVMVerity tests integrity at rest on ext4 with fs-verity: everything that the running root consists of is verified
// by the kernel at each read, also what was staged without fs-verity.
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
}
