package record

import (
	"slices"
	"testing"
)

// TestSortLosses: what a person accepts once is accepted for good, and nothing else is.
func TestSortLosses(t *testing.T) {
	r := &Record{}
	open, accepted := SortLosses(r, LossServices, []string{"a", "b"})
	if len(open) != 2 || accepted != nil || r.Losses != nil {
		t.Errorf("open %v, accepted %v, recorded %v", open, accepted, r.Losses)
	}
	r.Accepting = []LossKind{LossServices}
	if open, accepted := SortLosses(r, LossServices, []string{"a", "b"}); open != nil || len(accepted) != 2 {
		t.Errorf("open %v, accepted %v", open, accepted)
	}
	if open, _ := SortLosses(r, LossAccess, []string{"a"}); len(open) != 1 {
		t.Errorf("another kind was accepted, too: %v", r.Losses)
	}
	again := &Record{Losses: r.Losses}
	open, accepted = SortLosses(again, LossServices, []string{"b", "c"})
	if !slices.Equal(open, []string{"c"}) || !slices.Equal(accepted, []string{"b"}) {
		t.Errorf("later: open %v, accepted %v", open, accepted)
	}
}
