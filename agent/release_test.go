package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

var today = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// offered is what fetch makes of a release with this sequence, or with 0 of an image on its own.
func offered(t *testing.T, sequence int64, version string, waived error) *published {
	t.Helper()
	p := &published{mark: release.Mark{Version: version}, image: testImage(t), waived: waived}
	if sequence > 0 {
		p.mark.Sequence, p.mark.Digest = sequence, digest.FromString(version)
		p.release = &release.Release{Digest: p.mark.Digest, Header: release.Header{Version: version, Sequence: sequence}}
	}
	return p
}

// testImage is a verified image that exists nowhere.
func testImage(t *testing.T) *image.Image {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{},"layers":[]}`)
	payload, signature, err := sign.Simple(key, "test", digest.FromBytes(text))
	if err != nil {
		t.Fatal(err)
	}
	public, err := sign.PublicKey("test", key)
	if err != nil {
		t.Fatal(err)
	}
	v, err := verify.Policy{Keys: []verify.Key{public}}.Verify(text, ocispec.MediaTypeImageManifest,
		[]verify.Candidate{{Form: verify.FormSimple, Payload: payload, Signature: signature}})
	if err != nil {
		t.Fatal(err)
	}
	return &image.Image{Verified: v}
}

func TestAcceptedIsRemembered(t *testing.T) {
	older := errors.New("it is older")
	r := &Record{Good: []string{"host"}, Accepted: map[string]release.Mark{}}
	for _, step := range []struct {
		sequence int64
		version  string
		waived   error
		after    time.Duration // since today
		changed  bool
		mark     release.Mark // without the digest
		seen     time.Duration
	}{
		{0, "v1", nil, 0, true, release.Mark{Version: "v1"}, -1},
		{0, "trixie", nil, 0, false, release.Mark{Version: "v1"}, -1}, // names have no order
		{0, "v3", nil, 0, true, release.Mark{Version: "v3"}, -1},
		{0, "v2", nil, 0, false, release.Mark{Version: "v3"}, -1}, // it runs already: allowed, and no news
		{0, "v2", older, 0, true, release.Mark{Version: "v2"}, -1},
		{7, "2026.7", nil, time.Hour, true, release.Mark{Sequence: 7, Version: "2026.7"}, time.Hour},
		{7, "2026.7", nil, time.Hour, false, release.Mark{Sequence: 7, Version: "2026.7"}, time.Hour},
		{8, "2026.8", nil, 2 * time.Hour, true, release.Mark{Sequence: 8, Version: "2026.8"}, 2 * time.Hour},
		{9, "2026.9", nil, time.Minute, true, release.Mark{Sequence: 9, Version: "2026.9"}, 2 * time.Hour}, // the clock went back
		{0, "v9", older, 3 * time.Hour, false, release.Mark{Sequence: 9, Version: "2026.9"}, 2 * time.Hour},
		{7, "2026.7", older, 3 * time.Hour, true, release.Mark{Sequence: 7, Version: "2026.7"}, 3 * time.Hour},
	} {
		p := offered(t, step.sequence, step.version, step.waived)
		changed := r.accept(p.offered(r.Mark), today.Add(step.after))
		got := r.Mark
		got.Digest = ""
		seen := time.Duration(-1)
		if !r.Seen.IsZero() {
			seen = r.Seen.Sub(today)
		}
		if changed != step.changed || got != step.mark || seen != step.seen {
			t.Errorf("after %d %s: changed %v, mark %+v, seen %s; want %v, %+v, %s", step.sequence, step.version, changed, got, seen, step.changed, step.mark, step.seen)
		}
	}
	if m := r.Accepted[testImage(t).ID()]; m.Sequence != 7 {
		t.Errorf("the image counts as accepted with %+v", m)
	}
}

// A proven time of a signature has passed, whatever the clock says.
func TestProvenTimesAreSeen(t *testing.T) {
	at := latest(today, []verify.Voucher{{}, {SignedAt: today.Add(time.Hour)}, {SignedAt: today.Add(-time.Hour)}})
	if !at.Equal(today.Add(time.Hour)) || !latest(today, nil).Equal(today) {
		t.Errorf("latest is %s", at)
	}
	r := &Record{Accepted: map[string]release.Mark{}}
	p := offered(t, 7, "2026.7", nil)
	p.seen = at
	if !r.accept(p.offered(r.Mark), today) || !r.Seen.Equal(at) {
		t.Errorf("seen %s", r.Seen)
	}
}

// The mark is on the disk when accept returns, and what a downgrade waived is in the history.
func TestAcceptIsWritten(t *testing.T) {
	a := testAgent(t)
	a.Now = func() time.Time { return today }
	rec, err := a.readRecord()
	if err != nil {
		t.Fatal(err)
	}
	p := offered(t, 7, "2026.7", errors.New("it is older"))
	if err := a.accept(p, rec); err != nil {
		t.Fatal(err)
	}
	again, err := a.readRecord()
	if err != nil || again.Mark != p.mark || !again.Seen.Equal(today) || again.Accepted[p.image.ID()] != p.mark {
		t.Errorf("read back %+v, %v", again, err)
	}
	events, err := a.History()
	if err != nil || len(events) != 1 || events[0].Event != "downgrade" || events[0].Sequence != 7 || !strings.Contains(events[0].Reason, "--allow-downgrade: it is older") {
		t.Errorf("history %+v, %v", events, err)
	}
}

// What the operator leaves for something older is not taken again by itself the night after.
func TestLeave(t *testing.T) {
	for name, c := range map[string]struct {
		left release.Mark
		to   *published
		bad  bool
	}{
		"newer release":   {release.Mark{Sequence: 6, Version: "2026.6"}, offered(t, 7, "2026.7", nil), false},
		"older release":   {release.Mark{Sequence: 8, Version: "2026.8"}, offered(t, 7, "2026.7", nil), true},
		"newer image":     {release.Mark{Version: "v1"}, offered(t, 0, "v2", nil), false},
		"older image":     {release.Mark{Version: "v3"}, offered(t, 0, "v2", nil), true},
		"image by itself": {release.Mark{Sequence: 6, Version: "2026.6"}, offered(t, 0, "v2", nil), true},
	} {
		r := &Record{Bad: map[string]Bad{}, Accepted: map[string]release.Mark{"left": c.left}}
		if older := c.to.olderThan(r, "left"); older != c.bad {
			t.Errorf("%s: older %v", name, older)
		}
		r.leave("left", c.to.mark.Version, today)
		if bad := r.Bad["left"]; !strings.Contains(bad.Reason, "for version "+c.to.mark.Version) {
			t.Errorf("%s: %+v", name, r.Bad)
		}
		if c.to.olderThan(r, "host") {
			t.Errorf("%s: a root that was never accepted counts as newer", name)
		}
	}
}

func TestCircumstances(t *testing.T) {
	a := testAgent(t)
	a.Now = func() time.Time { return today }
	a.Config.Source.Compatible = "example,edge-2"
	rec := &Record{Good: []string{"host"}, Mark: release.Mark{Sequence: 7}, Seen: today, Accepted: map[string]release.Mark{"sha256-1": {Version: "1.0"}}}
	host := facts.Facts{Root: "host", Architecture: "arm64", Systemd: 257}
	f := a.circumstances(host, rec, "", true)
	if !f.Fresh || f.Running != "" || f.Compatible != "example,edge-2" || f.Platform.Architecture != "arm64" || f.Systemd != 257 || !f.AllowDowngrade || f.Mark.Sequence != 7 || !f.Seen.Equal(today) || !f.Now.Equal(today) {
		t.Errorf("%+v", f)
	}
	rec.Good = append(rec.Good, "sha256-1") // a boot of the kernel lands on the mutable host, whose state that root has used
	if f := a.circumstances(host, rec, a.versionOf(versioned(host, rec), rec), false); f.Fresh || f.Running != "1.0" || f.AllowDowngrade {
		t.Errorf("%+v", f)
	}
	rec.Good = append(rec.Good, "sha256-2") // nothing is known of it
	if f := a.circumstances(host, rec, a.versionOf(versioned(host, rec), rec), false); f.Fresh || f.Running != "" {
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
		if err := howTo(b, reference); !errors.Is(err, release.ErrBarrier) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", reference, err, want)
		}
	}
	b.Version = "2.0~rc1" // no tag can be called that
	if err := howTo(b, "oci:layout"); !errors.Is(err, release.ErrBarrier) || strings.Contains(err.Error(), "--from") {
		t.Errorf("%v", err)
	}
	if err := howTo(release.ErrExpired, "oci:layout"); err != release.ErrExpired {
		t.Errorf("%v", err)
	}
}
