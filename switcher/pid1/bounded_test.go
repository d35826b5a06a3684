package pid1

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestBounded: who gives up on systemd, its patience or the caller, is in the error.
func TestBounded(t *testing.T) {
	hang := func(ctx context.Context) (int, error) {
		time.Sleep(time.Minute)
		return 0, nil
	}
	_, err := bounded(t.Context(), time.Millisecond, hang)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "within 1ms") {
		t.Errorf("a systemd that hangs: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = bounded(cancelled, time.Hour, hang)
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "within") {
		t.Errorf("a caller who gives up: %v", err)
	}
}
