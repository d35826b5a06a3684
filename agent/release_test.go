package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher"
)

// TestAcceptIsWritten: the mark is on the disk when accept returns, and a downgrade is in the history with its reason.
func TestAcceptIsWritten(t *testing.T) {
	a := testAgent(t)
	today := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	a.Machine.Now = func() time.Time { return today }
	rec, err := a.Records.Read()
	if err != nil {
		t.Fatal(err)
	}
	r := &release.Release{Digest: digest.FromString("2026.7"), Header: release.Header{Version: "2026.7", Sequence: 7}}
	p := &offer.Published{
		Mark:  release.Mark{Sequence: r.Sequence, Version: r.Version, Digest: r.Digest},
		Image: hosttest.Image(t), Release: r, Waived: errors.New("it is older"),
	}
	if err := (&session{Agent: a, rec: rec}).accept(p); err != nil {
		t.Fatal(err)
	}
	again, err := a.Records.Read()
	if err != nil || again.Mark != p.Mark || !again.Seen.Equal(today) || again.Accepted[p.Image.ID()] != p.Mark {
		t.Errorf("read back %+v, %v", again, err)
	}
	events, err := a.Records.History()
	if err != nil || len(events) != 1 || events[0].Event != "downgrade" || events[0].Sequence != 7 ||
		!strings.Contains(events[0].Reason, "--allow-downgrade: it is older") {
		t.Errorf("history %+v, %v", events, err)
	}
}

// TestVersionThatCounts: after a full reboot a release is judged by the version of the last good root, not by the host
// root that runs.
func TestVersionThatCounts(t *testing.T) {
	h := newPatchHost(t)
	h.publishRelease(release.Header{Version: "3.0", Sequence: 3, MinVersion: "2.0"}, listing{name: "fix_1"})
	h.facts.Root = switcher.HostRoot
	for name, c := range map[string]struct {
		good     []string
		accepted string
		running  string // in the complaint
		err      error
	}{
		"no image ran here": {good: []string{"host"}},
		"new enough":        {good: []string{"host", "sha256-1"}, accepted: "2.0"},
		"too old": {
			good:     []string{"host", "sha256-1"},
			accepted: "1.0",
			running:  "1.0",
			err:      release.ErrBarrier,
		},
		"its version is unknown":  {good: []string{"host", "sha256-2"}, accepted: "2.0", err: release.ErrBarrier},
		"the later of two counts": {good: []string{"host", "sha256-2", "sha256-1"}, accepted: "2.0"},
	} {
		rec := &record.Record{Good: c.good, Accepted: map[string]release.Mark{"sha256-1": {Version: c.accepted}}}
		_, err := h.fetchVerified(t.Context(), "", h.facts, rec, false)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if b := (*release.Barrier)(nil); errors.As(err, &b) && b.Running != c.running {
			t.Errorf("%s: the running version is %q, want %q", name, b.Running, c.running)
		}
	}
}
