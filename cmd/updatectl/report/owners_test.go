package report

import (
	"io"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/accounts/numbers"
)

// TestOwnersText: plan says which files of the image show other numbers here, and which are nobody's.
func TestOwnersText(t *testing.T) {
	golden(t, "plan-owners", func(w io.Writer) {
		ownersText(w, []numbers.Shown{
			{Kind: "user", Name: "messagebus", Image: 101, Here: 110, Files: 1, Path: "/usr/lib/helper"},
			{Kind: "group", Image: 500, Here: 2147353076, Files: 3, Path: "/opt/app", Other: "docker"},
			{Kind: "group", Name: "gone", Image: 501, Here: 2147353077, Files: 1, Path: "/opt/gone", Other: "people"},
			{Kind: "group", Name: "crontab", Image: 997, Here: 996, Files: 1, Path: "/usr/bin/crontab"},
			{Kind: "group", Name: "ssh", Image: 996, Here: 995, Files: 2, Path: "/usr/bin/ssh-agent"},
		}, true)
	})
}
