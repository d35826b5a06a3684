package pid1

import (
	"testing"
)

func TestTroubleInWords(t *testing.T) {
	for want, trouble := range map[string]Trouble{
		"":                                       {},
		"systemd ended in rescue.target":         {Target: "rescue.target"},
		"these units failed: a.service, b.mount": {Failed: []string{"a.service", "b.mount"}},
		"these units failed: a, b, c, d, e and 2 more": {Failed: []string{"a", "b", "c", "d", "e", "f", "g"}},
		"systemd ended in emergency.target; these units failed: a.mount; updatectl-confirm.service did not run": {
			"emergency.target", []string{"a.mount"}, true},
	} {
		if got := trouble.String(); got != want {
			t.Errorf("%+v reads %q, want %q", trouble, got, want)
		}
	}
}
