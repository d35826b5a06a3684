package roots

import (
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent/record"
)

func TestOnlyAnApplyNeedsAnIntactRoot(t *testing.T) {
	for verb, want := range map[string]bool{
		record.VerbApply: false, record.VerbRollback: true, record.VerbResume: true, record.VerbBack: true,
	} {
		if got := mayBeDamaged(verb); got != want {
			t.Errorf("%s: %v, want %v", verb, got, want)
		}
	}
}

func TestChooseIntact(t *testing.T) {
	for intact, want := range map[string]string{"": "v2", "v1": "v1", "v2": "v2", "v1 v2": "v2"} {
		got := chooseIntact([]string{"v1", "v2"}, func(id string) bool {
			return slices.Contains(strings.Fields(intact), id)
		})
		if got != want {
			t.Errorf("intact are %q: %s, want %s", intact, got, want)
		}
	}
}
