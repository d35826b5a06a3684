package mount

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestExtents: every number is in exactly one line, moved or not.
func TestExtents(t *testing.T) {
	const all = lastNumber + 1
	line := func(inside, outside, count int) syscall.SysProcIDMap {
		return syscall.SysProcIDMap{ContainerID: inside, HostID: outside, Size: count}
	}
	for name, c := range map[string]struct {
		moved map[uint32]uint32
		want  []syscall.SysProcIDMap
		err   string
	}{
		"nothing": {map[uint32]uint32{5: 5}, []syscall.SysProcIDMap{line(0, 0, all)}, ""},
		"a chain, whose end is nobody's": {map[uint32]uint32{997: 996, 996: 995}, []syscall.SysProcIDMap{
			line(0, 0, 995), line(996, 995, 1), line(997, 996, 1), line(998, 998, all-998)}, ""},
		"two that swap": {map[uint32]uint32{1: 2, 2: 1, 0: 0}, []syscall.SysProcIDMap{
			line(0, 0, 1), line(1, 2, 1), line(2, 1, 1), line(3, 3, all-3)}, ""},
		"two with one number":          {map[uint32]uint32{7: 9, 8: 9}, nil, "both 7 and 8 would be 9"},
		"one that another one keeps":   {map[uint32]uint32{7: 9, 9: 9}, nil, "both 7 and 9 would be 9"},
		"more than the kernel can map": {manyMoved(), nil, "too many"},
	} {
		got, err := extents(c.moved)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", name, err, c.err)
			}
		} else if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

func manyMoved() map[uint32]uint32 {
	m := map[uint32]uint32{}
	for i := range uint32(200) {
		m[2*i+1] = 100000 + 2*i
	}
	return m
}

// TestNamespaceOnHardenedHost: a host that allows no user namespaces gets one for this, and allows none afterwards. The
// test runs once more in a user namespace, which has a limit of its own that its root may change.
func TestNamespaceOnHardenedHost(t *testing.T) {
	const inside = "MOUNT_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		all := []syscall.SysProcIDMap{{Size: lastNumber + 1}}
		again := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
		again.Env = append(os.Environ(), inside+"=1")
		again.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER, UidMappings: all, GidMappings: all,
		}
		out, err := again.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Fatalf("in a user namespace: %v\n%s", err, out)
		}
		return
	}
	if err := os.WriteFile(namespaceLimit, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := holdNamespace(nil, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("with a limit of 0, a user namespace is %v", err)
	}
	ns, err := userNamespace(Numbers{UID: map[uint32]uint32{1: 2}})
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	if now, err := os.ReadFile(namespaceLimit); err != nil || string(now) != "0\n" {
		t.Errorf("the limit is %q afterwards, %v", now, err)
	}
}
