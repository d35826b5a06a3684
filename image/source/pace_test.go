package source

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: after the first second, no more comes than the limit lets through, whatever the size of the parts.
func TestPace(t *testing.T) {
	const mib = 1 << 20
	for name, part := range map[string]int{"small parts": 4 << 10, "a part larger than the limit": 5 * mib} {
		synctest.Test(t, func(t *testing.T) {
			limit, begin := newLimit(mib), time.Now()
			for range 10 * mib / part {
				if err := pace(t.Context(), limit, part); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(begin).Round(10 * time.Millisecond); took != 9*time.Second {
				t.Errorf("%s: 10 MiB at 1 MiB per second took %v, want 9 s", name, took)
			}
		})
	}
}

// TestMaxRate: blobs of a place and of its mirrors share the limit, which does not make a place look slow.
func TestMaxRate(t *testing.T) {
	content := random(400_000)
	r := newTestRegistry(t)
	d := r.blob("x", content)
	s, err := Open(r.host()+"/os/server:x", Options{
		Apart: apart, PlainHTTP: []string{r.host()}, MaxRate: 200_000, Mirrors: []string{r.host() + "/os/mirror:x"},
		Warn: func(err error) { t.Errorf("warning: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	got, err := readAll(t, s, d)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if took := time.Since(begin); took < 600*time.Millisecond { // what comes last is not waited for
		t.Errorf("400 kB at 200 kB per second, half of them at once, took %v", took)
	}
	if s.mirrors[0].limit != s.limit {
		t.Error("the mirror has a limit of its own")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pace(ctx, s.limit, 200_000); !errors.Is(err, context.Canceled) {
		t.Errorf("in a run that was ended: %v", err)
	}
}
