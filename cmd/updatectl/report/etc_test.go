package report

import (
	"io"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent/changes"
	"github.com/updatectl/updatectl/switcher/etc/difference"
)

// TestDifferencesText: the answers about /etc, as wide as a terminal; the difference of a text is never folded.
func TestDifferencesText(t *testing.T) {
	long := strings.Repeat("long ", 30)
	d := changes.Differences{
		Root: "sha256-" + strings.Repeat("0123456789abcdef", 4),
		Differences: []difference.Difference{
			{Path: "crontab", Change: difference.Changed, Fields: []string{"mode"}},
			{Path: "default/grub", Change: difference.Merged, Fields: []string{"content"}},
			{Path: "nginx/nginx.conf", Change: difference.Conflicting, Fields: []string{"content", "mode", "owner", "group"},
				Beside: "nginx/.nginx.conf.image.dpkg-new", Diff: "diff image/x etc/x\n-\x1b[31m" + long + "\n+b\n"},
			{Path: "shadow", Change: difference.Changed, Fields: []string{"content"}},
			{Path: "ssl/certs/ca-certificates.crt", Change: difference.Remade, Fields: []string{"content"}},
			{Path: "systemd/system/multi-user.target.wants/some-long-service-name.service", Change: difference.Added},
		},
	}
	golden(t, "etc-diff", func(w io.Writer) { Differences(w, d) })
	var out strings.Builder
	if err := TextDiffs(&out, d); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), long+"\n+b\n") || strings.Contains(out.String(), "\x1b") {
		t.Errorf("the difference is shown as %q", out.String())
	}
	golden(t, "etc-take", func(w io.Writer) {
		Taken(w, difference.Taken{Path: "/etc/crontab", Backup: "/etc/.crontab.20260301-100000.dpkg-old",
			Undo: "mv -T /etc/.crontab.20260301-100000.dpkg-old /etc/crontab"})
	})
}
