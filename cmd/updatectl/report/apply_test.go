package report

import (
	"io"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent"
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
	Rechecked(&text, agent.Rechecked{Root: "r", Vouchers: vouchers})
	if strings.Contains(text.String(), "version") || !strings.Contains(text.String(), "Up to date: r runs, signed by") {
		t.Errorf("it is:\n%s", text.String())
	}
}
