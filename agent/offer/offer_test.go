package offer

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
)

var today = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// published returns a release with this sequence as Verify does; sequence 0 makes an image on its own.
func published(t *testing.T, sequence int64, version string, waived error) *Published {
	t.Helper()
	p := &Published{Mark: release.Mark{Version: version}, Image: hosttest.Image(t), Waived: waived}
	if sequence > 0 {
		p.Mark.Sequence, p.Mark.Digest = sequence, digest.FromString(version)
		p.Release = &release.Release{Digest: p.Mark.Digest, Header: release.Header{Version: version, Sequence: sequence}}
	}
	return p
}

func TestAcceptedIsRemembered(t *testing.T) {
	older := errors.New("it is older")
	v1, v3 := release.Mark{Version: "v1"}, release.Mark{Version: "v3"}
	r7, r8 := release.Mark{Sequence: 7, Version: "2026.7"}, release.Mark{Sequence: 8, Version: "2026.8"}
	r9 := release.Mark{Sequence: 9, Version: "2026.9"}
	r := &record.Record{Good: []string{"host"}, Accepted: map[string]release.Mark{}}
	for _, step := range []struct {
		sequence int64
		version  string
		waived   error
		after    time.Duration // since today
		changed  bool
		mark     release.Mark // without the digest
		seen     time.Duration
	}{
		{version: "v1", changed: true, mark: v1, seen: -1},
		{version: "trixie", mark: v1, seen: -1}, // names have no order
		{version: "v3", changed: true, mark: v3, seen: -1},
		{version: "v2", mark: v3, seen: -1}, // it runs already: allowed, and nothing new
		{version: "v2", waived: older, changed: true, mark: release.Mark{Version: "v2"}, seen: -1},
		{sequence: 7, version: "2026.7", after: time.Hour, changed: true, mark: r7, seen: time.Hour},
		{sequence: 7, version: "2026.7", after: time.Hour, mark: r7, seen: time.Hour},
		{sequence: 8, version: "2026.8", after: 2 * time.Hour, changed: true, mark: r8, seen: 2 * time.Hour},
		// the clock went backwards
		{sequence: 9, version: "2026.9", after: time.Minute, changed: true, mark: r9, seen: 2 * time.Hour},
		{version: "v9", waived: older, after: 3 * time.Hour, mark: r9, seen: 2 * time.Hour},
		{sequence: 7, version: "2026.7", waived: older, after: 3 * time.Hour, changed: true, mark: r7, seen: 3 * time.Hour},
	} {
		p := published(t, step.sequence, step.version, step.waived)
		changed := r.Accept(p.Offered(r.Mark), today.Add(step.after))
		got := r.Mark
		got.Digest = ""
		seen := time.Duration(-1)
		if !r.Seen.IsZero() {
			seen = r.Seen.Sub(today)
		}
		if changed != step.changed || got != step.mark || seen != step.seen {
			t.Errorf("after %d %s: changed %v, mark %+v, seen %s; want %v, %+v, %s", step.sequence,
				step.version, changed, got, seen, step.changed, step.mark, step.seen)
		}
	}
	if m := r.Accepted[hosttest.Image(t).ID()]; m.Sequence != 7 {
		t.Errorf("the image was accepted as %+v", m)
	}
}

// TestProvenTimesAreSeen: the proven time of a signature has passed, whatever the clock says.
func TestProvenTimesAreSeen(t *testing.T) {
	at := latestProven(today, []verify.Voucher{{}, {SignedAt: today.Add(time.Hour)}, {SignedAt: today.Add(-time.Hour)}})
	if !at.Equal(today.Add(time.Hour)) || !latestProven(today, nil).Equal(today) {
		t.Errorf("latest is %s", at)
	}
	r := &record.Record{Accepted: map[string]release.Mark{}}
	p := published(t, 7, "2026.7", nil)
	p.seen = at
	if !r.Accept(p.Offered(r.Mark), today) || !r.Seen.Equal(at) {
		t.Errorf("seen %s", r.Seen)
	}
}

// TestOlderThan: a root that the operator leaves for an older one is recognized, so that it is not taken again the
// night after.
func TestOlderThan(t *testing.T) {
	for name, c := range map[string]struct {
		left release.Mark
		to   *Published
		bad  bool
	}{
		"newer release":    {release.Mark{Sequence: 6, Version: "2026.6"}, published(t, 7, "2026.7", nil), false},
		"older release":    {release.Mark{Sequence: 8, Version: "2026.8"}, published(t, 7, "2026.7", nil), true},
		"newer image":      {release.Mark{Version: "v1"}, published(t, 0, "v2", nil), false},
		"older image":      {release.Mark{Version: "v3"}, published(t, 0, "v2", nil), true},
		"image on its own": {release.Mark{Sequence: 6, Version: "2026.6"}, published(t, 0, "v2", nil), true},
	} {
		r := &record.Record{Bad: map[string]record.Bad{}, Accepted: map[string]release.Mark{"left": c.left}}
		if older := c.to.OlderThan(r, "left"); older != c.bad {
			t.Errorf("%s: older %v", name, older)
		}
		if c.to.OlderThan(r, "host") {
			t.Errorf("%s: a root that was never accepted counts as newer", name)
		}
	}
}

func TestCircumstances(t *testing.T) {
	of := newOffers(t)
	of.Machine.Now = func() time.Time { return today }
	of.Config.Source.Compatible = "example,edge-2"
	rec := &record.Record{
		Good: []string{"host"}, Mark: release.Mark{Sequence: 7}, Seen: today,
		Accepted: map[string]release.Mark{"sha256-1": {Version: "1.0"}},
	}
	host := facts.Facts{Root: "host", Architecture: "arm64", Systemd: 257}
	f := of.circumstances(host, rec, "", true)
	if !f.Fresh || f.Running != "" || f.Compatible != "example,edge-2" || f.Platform.Architecture != "arm64" ||
		f.Systemd != 257 || !f.AllowDowngrade || f.Mark.Sequence != 7 || !f.Seen.Equal(today) || !f.Now.Equal(today) {
		t.Errorf("%+v", f)
	}
	rec.Good = append(rec.Good, "sha256-1") // a full reboot lands on the host root, whose state that root has used
	if root := VersionedRoot(host, rec); root != "sha256-1" {
		t.Errorf("the version of %s counts", root)
	}
	if f := of.circumstances(host, rec, "1.0", false); f.Fresh || f.Running != "1.0" || f.AllowDowngrade {
		t.Errorf("%+v", f)
	}
	rec.Good = append(rec.Good, "sha256-2") // no release is recorded for it
	if root := VersionedRoot(host, rec); root != "sha256-2" {
		t.Errorf("the version of %s counts", root)
	}
	if f := of.circumstances(host, rec, "", false); f.Fresh || f.Running != "" {
		t.Errorf("%+v", f)
	}
}

func TestHowToPassABarrier(t *testing.T) {
	b := &release.Barrier{Release: "3.0", Version: "2.0", Running: "1.0"}
	for reference, want := range map[string]string{
		"registry.example.org:5000/os:stable":   "--from registry.example.org:5000/os:2.0`",
		"registry.example.org:5000/os@sha256:1": "--from registry.example.org:5000/os:2.0`",
		"oci:/srv/layout:stable":                "--from oci:/srv/layout:2.0`",
		"oci:layout":                            "--from oci:layout:2.0`",
	} {
		if err := withBarrierCommand(b, reference); !errors.Is(err, release.ErrBarrier) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", reference, err, want)
		}
	}
	b.Version = "2.0~rc1" // not a valid tag
	if err := withBarrierCommand(b, "oci:layout"); !errors.Is(err, release.ErrBarrier) ||
		strings.Contains(err.Error(), "--from") {
		t.Errorf("%v", err)
	}
	if err := withBarrierCommand(release.ErrExpired, "oci:layout"); err != release.ErrExpired {
		t.Errorf("%v", err)
	}
}
