//go:build lab && vm

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestVMImageKernel: a full reboot starts the kernel of the image, which GRUB starts once and, from when the root is
// good, by default. One that does not come up is gone at the next boot, and a rollback brings the kernel before it.
func TestVMImageKernel(t *testing.T) {
	beside(t, lab.QEMU)
	tree, err := lab.GRUBTree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bringsKernel(t, lab.Options{Name: "vmkernel", Tree: tree, Loader: lab.GRUB}, "cat /.updatectl/host/boot/grub/grubenv",
		func(env string) bool {
			return !strings.Contains(env, "updatectl_once=updatectl") &&
				strings.Contains(env, "updatectl_default=updatectl-")
		})
}

// TestVMImageKernelUEFI is the same with systemd-boot, which keeps what to start in variables of the firmware.
func TestVMImageKernelUEFI(t *testing.T) {
	beside(t, lab.QEMU)
	tree, err := lab.SystemdBootTree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const variables = `ls /sys/firmware/efi/efivars | head -n 1; cd /sys/firmware/efi/efivars
for name in Default OneShot; do
	echo "$name=$(cat LoaderEntry$name-* 2>/dev/null | tr -d '\000-\010')"
done`
	bringsKernel(t, lab.Options{Name: "vmuefi", Tree: tree, Loader: lab.SystemdBoot}, variables, func(set string) bool {
		return strings.Contains(set, "\nDefault=00-updatectl-") && strings.HasSuffix(strings.TrimSpace(set), "\nOneShot=")
	})
}

// bringsKernel has images bring their kernels to a host. What a script prints of the loader's variables, isLasting
// accepts soon after the root on a new kernel is good: then the kernel is the default.
func bringsKernel(t *testing.T, o lab.Options, variables string, isLasting func(string) bool) {
	o.Kind = lab.QEMU
	s := newPublisher(t)
	s.boot(o, func(root string) error {
		return writeTexts(root, map[string]string{"etc/updatectl/conf.d/10-boot.toml": "[boot]\nkernel = \"image\"\n"})
	})
	s.publish("1", "os/server:stable")
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	k := &kernels{s, s.host.Must(t, "uname", "-r"), kernelOfTree(t, s.tree("2"))}
	if k.first == k.second {
		t.Fatalf("both images have kernel %s", k.first)
	}
	s.publish("2", "os/server:stable")
	s.boots("updatectl", "apply", "--level", "full")
	s.runs(s.roots["2"], "2")
	k.runs(k.second, "panic=30")
	var loader string
	if !s.host.Await(t, s.host.Patience(), func() bool {
		loader = s.host.Sh(t.Context(), variables).Stdout
		return isLasting(loader)
	}) {
		t.Errorf("the kernel of a good root is not the default; the loader has\n%s", loader)
	}
	s.host.Must(t, "modprobe", "dummy")
	s.boots("systemctl", "reboot")
	s.runs(s.roots["2"], "2")
	k.runs(k.second, "updatectl.kernel=")

	panics, root := s.variant("panics", "2", aFile("usr/lib/updatectl/kargs.d/10-lab.toml",
		"kargs = ['rdinit=/nothing', 'root=/dev/nothing']\n"))
	v := s.boots("updatectl", "apply", "--level", "full", "--from", panics)
	if v.Last.Outcome != "old kernel" || v.Last.Target != root || !strings.Contains(v.Last.Reason, "did not come up") {
		t.Errorf("after a kernel that panics, status is %+v", v.Last)
	}
	s.runs(s.roots["2"], "2")
	k.runs(k.second, "updatectl.kernel=")

	s.switches("rollback")
	s.runs(s.roots["1"], "1")
	k.runs(k.second, "updatectl.kernel=")
	s.boots("systemctl", "reboot")
	s.runs(s.roots["1"], "1")
	k.runs(k.first, "")
}

// kernels are the kernels of a host and of an image.
type kernels struct {
	*site
	first, second string
}

// runs expects a kernel, and a word on its command line; "" for none of the image's.
func (k *kernels) runs(release, word string) {
	k.Helper()
	if got := k.host.Must(k.T, "uname", "-r"); got != release {
		k.Errorf("kernel %s runs, want %s", got, release)
	}
	line := k.host.Must(k.T, "cat", "/proc/cmdline")
	if word != "" && !strings.Contains(line, word) || word == "" && strings.Contains(line, "updatectl.kernel=") {
		k.Errorf("the command line is %q", line)
	}
}

// kernelOfTree returns the release of the only kernel of a tree.
func kernelOfTree(t *testing.T, tree string) string {
	t.Helper()
	names, err := os.ReadDir(filepath.Join(tree, "usr/lib/modules"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%s has the kernels %v, %v", tree, names, err)
	}
	return names[0].Name()
}
