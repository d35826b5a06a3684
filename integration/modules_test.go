//go:build lab && vm

package integration

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestVMLabModules tests the lab's kernel modules without the product: what the live patches do on a running kernel,
// and that they stay across a soft reboot, which the product relies on.
func TestVMLabModules(t *testing.T) {
	beside(t, lab.QEMU)
	ctx := t.Context()
	h := lab.Start(t, lab.Options{Name: "vmmodules", Kind: lab.QEMU})
	v1, err := lab.V1(ctx)
	if err != nil {
		t.Fatal(err)
	}
	modules, err := lab.Modules(ctx, v1)
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range modules {
		if err := h.CopyIn(ctx, path, filepath.Join("/root/modules", name+".ko")); err != nil {
			t.Fatal(err)
		}
	}
	kernel, err := h.Kernel(ctx)
	if err != nil || !strings.HasPrefix(kernel.Version, "#1 SMP") || len(kernel.BuildID) != 40 {
		t.Fatalf("the kernel is %+v (%v)", kernel, err)
	}
	t.Logf("%+v", kernel)
	load := func(name string) { t.Helper(); h.Must(t, "insmod", "/root/modules/"+name+".ko") }
	state := func(patch, file string) string {
		return strings.TrimSpace(h.Run(ctx, "cat", "/sys/kernel/livepatch/"+patch+"/"+file).Stdout)
	}
	complete := func(patch string) {
		t.Helper()
		if !h.Await(t, h.Patience(), func() bool { return state(patch, "transition") == "0" }) {
			t.Fatalf("the transition of %s does not end", patch)
		}
	}
	says := func(want string) {
		t.Helper()
		if got := h.Must(t, "cat", "/proc/version"); !strings.HasSuffix(got, want) {
			t.Errorf("/proc/version says %q, want %q at its end", got, want)
		}
	}

	load("lab_fix")
	complete("lab_fix")
	says(", lab fix 1")
	load("lab_plain")
	if r := h.Run(ctx, "insmod", "/root/modules/lab_fix_fails.ko"); r.Code == 0 {
		t.Error("a live patch whose init fails was loaded")
	}
	if _, err := h.SoftReboot(ctx); err != nil {
		t.Fatal(err)
	}
	if state("lab_fix", "enabled") != "1" || state("lab_fix", "transition") != "0" {
		t.Error("the live patch is gone after a soft reboot")
	}
	says(", lab fix 1")
	load("lab_fix2")
	complete("lab_fix2")
	says(", lab fix 2")
	if got := state("lab_fix", "enabled"); got == "1" {
		t.Error("the first live patch is still enabled beside its successor")
	}

	load("lab_hold")
	reader, stop := context.WithCancel(ctx)
	defer stop()
	held := make(chan lab.Result, 1)
	go func() { held <- h.Run(reader, "cat", "/proc/lab_hold") }()
	if !h.Await(t, h.Patience(), func() bool {
		return h.Sh(ctx,
			`grep -q lab_hold_wait /proc/$(pidof cat)/stack`).Code == 0
	}) {
		t.Fatal("nobody is blocked in /proc/lab_hold")
	}
	load("lab_fix_hold")
	const signals = 20 * time.Second // the kernel sends fake signals every 15 s to speed up a transition
	time.Sleep(signals)
	if state("lab_fix_hold", "transition") != "1" {
		t.Error("the transition did not wait for the blocked task")
	}
	h.Must(t, "pkill", "-KILL", "-x", "cat")
	if r := <-held; r.Code != 128+9 {
		t.Errorf("the reader: %s", r)
	}
	complete("lab_fix_hold")
	h.Must(t, "cat", "/proc/lab_hold") // patched, it blocks nobody
}
