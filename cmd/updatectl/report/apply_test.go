package report

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/recheck"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/verify"
)

// TestRollbackText: a rollback says where the changes of the root that is left are.
func TestRollbackText(t *testing.T) {
	root := "sha256-" + strings.Repeat("ab", 32)
	text := page(t, func(w io.Writer) {
		Applied(w, agent.Applied{Switching: true, Root: "host", From: root,
			LeftInEtc: []string{"a", "b", "c", "d", "e", "f"}})
	})
	if want := "6 files that changed here: a, b, c, d, e …"; !strings.Contains(text, want) {
		t.Errorf("%q is not in %q", want, text)
	}
	if want := "/var/lib/updatectl/roots/sha256-abababababab*/etc"; !strings.Contains(text, want) {
		t.Errorf("%q is not in %q", want, text)
	}
}

// TestSwitchedText: who switches to a staged root takes the present /etc along.
func TestSwitchedText(t *testing.T) {
	text := page(t, func(w io.Writer) {
		Applied(w, agent.Applied{Switching: true, Root: "sha256-a", From: "host",
			Decision: &level.Decision{Level: level.Soft}})
	})
	if strings.Contains(text, "as it was") || !strings.Contains(text, "host -> sha256-a") {
		t.Errorf("it is:\n%s", text)
	}
}

// TestRootList: a table that fits a terminal.
func TestRootList(t *testing.T) {
	size := int64(7 << 30)
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	got := page(t, func(w io.Writer) {
		RootList(w, roots.List{Roots: []roots.Listed{
			{Root: "host", States: []roots.State{roots.Good}},
			{Root: "sha256-" + strings.Repeat("ab", 32), Version: "2026.03.1", StagedAt: at, OwnBytes: &size,
				States: []roots.State{roots.Booted, roots.Good, roots.Pinned}},
			{Root: "sha256-" + strings.Repeat("cd", 32), StagedAt: at},
		}, Warnings: []string{"no evidence"}})
	})
	const want = `Warning: no evidence.
ROOT                 VERSION    STAGED      OWN SIZE  STATE
host                 -          -           -         good
sha256-abababababab  2026.03.1  2026-03-01  7.52GB    booted, good, pinned
sha256-cdcdcdcdcdcd  -          2026-03-01  -         not needed
`
	if got != want {
		t.Errorf("it is:\n%s", got)
	}
}

// TestImageWithoutAVersion: nothing is written about a version that an image does not have.
func TestImageWithoutAVersion(t *testing.T) {
	vouchers := []verify.Voucher{{Signer: "release.pub", Form: verify.FormBundle}}
	var text strings.Builder
	Available(&text, agent.Available{Root: "r", Vouchers: vouchers})
	Available(&text, agent.Available{Root: "r", Vouchers: vouchers, Live: true})
	Available(&text, agent.Available{Root: "r", Vouchers: vouchers, Newer: true})
	Staged(&text, agent.Applied{Root: "r", From: "r", Vouchers: vouchers})
	Staged(&text, agent.Applied{Root: "r", From: "s", Vouchers: vouchers})
	Applied(&text, agent.Applied{Root: "r", From: "r", Vouchers: vouchers})
	Rechecked(&text, recheck.Rechecked{Root: "r", Vouchers: vouchers})
	if strings.Contains(text.String(), "version") || !strings.Contains(text.String(), "Up to date: r runs, signed by") {
		t.Errorf("it is:\n%s", text.String())
	}
}
