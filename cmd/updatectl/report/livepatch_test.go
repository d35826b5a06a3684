package report

import (
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/verify/printable"
)

// TestKernelFlags: what names the kernel fits a terminal, and a shell reads it as the same three flags.
func TestKernelFlags(t *testing.T) {
	k := agent.LiveKernel{Release: "6.12.117+deb13-cloud-amd64",
		Version: "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1 (2026-11-01)", BuildID: strings.Repeat("ab", 20)}
	text := page(t, func(w io.Writer) { kernelFlags(w, k) })
	for line := range strings.Lines(text) {
		if utf8.RuneCountInString(strings.TrimRight(line, "\n")) > printable.Columns {
			t.Errorf("wider than a terminal: %q", line)
		}
	}
	flags := strings.TrimPrefix(text, "Kernel")
	got, err := exec.Command("sh", "-c", "printf '%s\n' "+flags).Output()
	want := strings.Join([]string{"--kernel-release", k.Release, "--kernel-version", k.Version,
		"--kernel-build-id", k.BuildID, ""}, "\n")
	if err != nil || string(got) != want {
		t.Errorf("a shell reads %q (%v), want %q", got, err, want)
	}
}

// TestFixText: a full reboot boots the host's kernel, so it is not promised to bring a fix.
func TestFixText(t *testing.T) {
	open := live.Fix{CVE: "CVE-2026-0001", State: live.FixOpen, RebootBy: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC),
		By: "fix_1", Reason: "held"}
	const want = "open: needs another kernel, or the live patch fix_1, which is held; a full reboot is due by 2026-12-01"
	if got := fixText(open); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
