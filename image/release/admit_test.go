package release

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// a release with the sequence 42, where the tests do not need another one.
func sample() *Release {
	pi := imageFor(arm64)
	pi.Compatible = "pi,4"
	edge := imageFor(amd64)
	edge.Compatible, edge.SystemdMin = "example,edge-2", 254
	return &Release{
		Digest: digest.FromString("42"),
		Header: Header{Version: "2026.11", Sequence: 42, Expires: today.Add(time.Hour)},
		Images: []Image{pi, imageFor(amd64), edge},
	}
}

func TestAdmit(t *testing.T) {
	mark := func(sequence int64, version string) Mark {
		return Mark{sequence, version, digest.FromString("the one accepted")}
	}
	same := Mark{42, "2026.11", digest.FromString("42")}
	for name, c := range map[string]struct {
		release func(*Release)
		facts   func(*Facts)
		class   error // nil: admitted
		want    string
	}{
		"first":                 {},
		"next":                  {facts: func(f *Facts) { f.Mark = mark(41, "2026.10") }},
		"same again":            {facts: func(f *Facts) { f.Mark = same }},
		"renewed, same version": {facts: func(f *Facts) { f.Mark = mark(41, "2026.11") }},
		"after plain images":    {facts: func(f *Facts) { f.Mark = Mark{Version: "2030"} }},
		"older": {facts: func(f *Facts) { f.Mark = mark(43, "2026.12") }, class: ErrReplayed,
			want: "has the sequence 42, and sequence 43 (version 2026.12) was accepted before"},
		"older, same version": {facts: func(f *Facts) { f.Mark = mark(43, "2026.11") }, class: ErrReplayed,
			want: "has the sequence 42, and sequence 43"},
		"older sequence, newer version": {facts: func(f *Facts) { f.Mark = mark(43, "2026.9") }, class: ErrReplayed,
			want: "version and sequence contradict each other"},
		"newer sequence, older version": {facts: func(f *Facts) { f.Mark = mark(41, "2026.12") }, class: ErrOlder,
			want: "its version is older than 2026.12"},
		"another with the same sequence": {facts: func(f *Facts) { f.Mark = mark(42, "2026.11") }, class: ErrReplayed,
			want: "is not the one with the sequence 42"},
		"older, allowed":         {facts: func(f *Facts) { f.Mark, f.AllowDowngrade = mark(43, "2026.12"), true }},
		"older version, allowed": {facts: func(f *Facts) { f.Mark, f.AllowDowngrade = mark(41, "2026.12"), true }},
		"a second before expiry": {facts: func(f *Facts) { f.Now = today.Add(time.Hour - time.Second) }},
		"expired": {facts: func(f *Facts) { f.Now = today.Add(time.Hour) }, class: ErrExpired,
			want: "expired at 2026-11-22T13:00:00Z"},
		"expired long ago": {facts: func(f *Facts) { f.Now = today.AddDate(5, 0, 0) }, class: ErrExpired,
			want: "expired at"},
		"expired, downgrade": {facts: func(f *Facts) { f.Now, f.AllowDowngrade = today.Add(time.Hour), true },
			class: ErrExpired, want: "expired at"},
		"expired before replayed": {facts: func(f *Facts) {
			f.Now, f.Mark = today.Add(time.Hour),
				mark(43, "2026.12")
		}, class: ErrExpired, want: "expired at"},
		"clock set back": {facts: func(f *Facts) { f.Now, f.Seen = today.AddDate(-1, 0, 0), today.Add(2*time.Hour) },
			class: ErrExpired,
			want:  "the clock says 2025-11-22T12:00:00Z, but 2026-11-22T14:00:00Z has already passed"},
		"clock set back a little": {facts: func(f *Facts) { f.Seen = today.Add(time.Minute) }},
		"clock set back, in time": {facts: func(f *Facts) { f.Now, f.Seen = today.AddDate(-1, 0, 0), today }},
		"barrier passed": {release: func(r *Release) { r.MinVersion = "2026.6" },
			facts: func(f *Facts) { f.Running = "2026.6" }},
		"barrier, no image yet": {release: func(r *Release) { r.MinVersion = "2026.6" },
			facts: func(f *Facts) { f.Fresh = true }},
		"barrier": {release: func(r *Release) { r.MinVersion = "2026.6" },
			facts: func(f *Facts) { f.Running = "2026.5" }, class: ErrBarrier,
			want: "this one runs 2026.5: it goes through 2026.6 first"},
		"barrier, downgrade": {release: func(r *Release) { r.MinVersion = "2026.6" },
			facts: func(f *Facts) { f.Running, f.AllowDowngrade = "2026.5", true }, class: ErrBarrier,
			want: "through 2026.6 first"},
		"barrier, unknown version": {release: func(r *Release) { r.MinVersion = "2026.6" }, class: ErrBarrier,
			want: "runs an unknown version"},
		"other platform": {facts: func(f *Facts) { f.Platform.Architecture = "riscv64" },
			class: ErrIncompatible, want: "is for amd64, arm64, and this host is riscv64"},
		"no image": {release: func(r *Release) { r.Images = nil }, class: ErrIncompatible,
			want: "has no image and no live patch"},
		"only live patches": {release: onlyPatches},
		"only live patches, older": {release: onlyPatches, facts: func(f *Facts) { f.Mark = mark(43, "2026.12") },
			class: ErrReplayed, want: "sequence 43 (version 2026.12) was accepted before"},
		"only live patches, expired": {release: onlyPatches, facts: func(f *Facts) { f.Now = today.Add(time.Hour) },
			class: ErrExpired, want: "expired at"},
		"only live patches, barrier": {release: func(r *Release) { onlyPatches(r); r.MinVersion = "2026.6" },
			facts: func(f *Facts) { f.Running = "2026.5" }, class: ErrBarrier, want: "through 2026.6 first"},
		"no image for this platform": {release: func(r *Release) { r.LivePatches = []LivePatch{somePatch} },
			facts: func(f *Facts) { f.Platform.Architecture = "riscv64" }, class: ErrIncompatible,
			want: "this host is riscv64"},
		"class needed, none": {facts: func(f *Facts) { f.Platform = arm64 }, class: ErrIncompatible,
			want: "machine classes pi,4, and this host has none configured"},
		"class needed, other": {facts: func(f *Facts) { f.Platform, f.Compatible = arm64, "pi,5" },
			class: ErrIncompatible, want: "machine classes pi,4, and this host is of the class pi,5"},
		"class differs in case": {facts: func(f *Facts) { f.Platform, f.Compatible = arm64, "PI,4" },
			class: ErrIncompatible, want: "of the class PI,4"},
		"class fits": {facts: func(f *Facts) { f.Platform, f.Compatible = arm64, "pi,4" }},
		"systemd too old": {facts: func(f *Facts) { f.Compatible, f.Systemd = "example,edge-2", 253 },
			class: ErrIncompatible, want: "systemd 254 or newer on the host, which runs 253"},
		"no systemd": {facts: func(f *Facts) { f.Compatible, f.Systemd = "example,edge-2", 0 },
			class: ErrIncompatible, want: "none was found"},
		"systemd as old as allowed": {facts: func(f *Facts) { f.Compatible, f.Systemd = "example,edge-2", 254 }},
	} {
		t.Run(name, func(t *testing.T) {
			r, f := sample(), Facts{Now: today, Platform: amd64, Systemd: 257}
			if c.release != nil {
				c.release(r)
			}
			if c.facts != nil {
				c.facts(&f)
			}
			_, err := r.Admit(f)
			if !errors.Is(err, c.class) || c.class == nil && err != nil || !(c.class == nil || contains(err, c.want)) {
				t.Errorf("Admit: %v; want %v with %q", err, c.class, c.want)
			}
			if isStale := errors.Is(err, ErrStale); isStale != (c.class == ErrExpired || c.class == ErrReplayed ||
				c.class == ErrOlder) {
				t.Errorf("%v is stale: %v", err, isStale)
			}
		})
	}
}

// onlyPatches removes the images from a release.
func onlyPatches(r *Release) { r.Images, r.LivePatches = nil, []LivePatch{somePatch} }

// A release without an image does not change the root.
func TestAdmitWithoutImage(t *testing.T) {
	r := sample()
	onlyPatches(r)
	i, err := r.Admit(Facts{Now: today, Platform: amd64, Running: "2026.5"})
	if err != nil || i.Descriptor.Digest != "" {
		t.Errorf("%+v, %v", i, err)
	}
}

func TestBarrierNamesTheVersions(t *testing.T) {
	r := sample()
	r.MinVersion = "2026.6"
	_, err := r.Admit(Facts{Now: today, Platform: amd64, Running: "2025.1"})
	var b *Barrier
	if !errors.As(err, &b) || *b != (Barrier{"2026.11", "2026.6", "2025.1"}) {
		t.Errorf("%#v", err)
	}
}

func TestImageOfTheClassIsPreferred(t *testing.T) {
	r := sample()
	for class, want := range map[string]string{"": "", "example,edge-2": "example,edge-2", "example,other": ""} {
		i, err := r.Admit(Facts{Now: today, Platform: amd64, Compatible: class, Systemd: 257})
		if err != nil || i.Compatible != want || i.Descriptor.Platform.Architecture != "amd64" {
			t.Errorf("class %q got %+v, %v", class, i, err)
		}
	}
}

// An arm/v7 image does not run on arm/v6.
func TestVariants(t *testing.T) {
	v6, v7 := ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"},
		ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	r := sample()
	r.Images = []Image{imageFor(v7)}
	if _, err := r.Admit(Facts{Now: today, Platform: v6}); !errors.Is(err, ErrIncompatible) ||
		!contains(err, "arm/v7") {
		t.Errorf("%v", err)
	}
}

func TestClockBack(t *testing.T) {
	for seen, want := range map[time.Duration]time.Duration{
		-time.Hour: 0, 0: 0, ClockTolerance: 0, ClockTolerance + time.Second: ClockTolerance + time.Second,
		24 * time.Hour: 24 * time.Hour,
	} {
		if got := (Facts{Now: today, Seen: today.Add(seen)}).ClockBack(); got != want {
			t.Errorf("seen %s later: %s, want %s", seen, got, want)
		}
	}
	if (Facts{Now: today}).ClockBack() != 0 {
		t.Error("a host that has seen nothing has a clock that went back")
	}
}

func TestOrderImage(t *testing.T) {
	for name, c := range map[string]struct {
		version string
		mark    Mark
		class   error
	}{
		"first":            {"v1", Mark{}, nil},
		"newer":            {"v2", Mark{Version: "v1"}, nil},
		"same":             {"v1", Mark{Version: "v1"}, nil},
		"older":            {"v1", Mark{Version: "v2"}, ErrOlder},
		"older in numbers": {"9", Mark{Version: "10"}, ErrOlder},
		"a name":           {"bookworm", Mark{Version: "13"}, nil},
		"after a name":     {"1", Mark{Version: "trixie"}, nil},
		"a hash":           {"3fa9c27", Mark{Version: "9"}, nil},
		"no version":       {"", Mark{Version: "9"}, nil},
		"after a release":  {"v9", Mark{Sequence: 1, Version: "v1"}, ErrReplayed},
	} {
		if err := OrderImage(c.version, c.mark); !errors.Is(err, c.class) || c.class == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, c.class)
		}
	}
}

// TestOrderSaysWhatIsWrong: a contradiction is reported as one, and nothing else is.
func TestOrderSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		mark Mark
		want string
	}{
		"older sequence, newer version": {Mark{43, "2026.9", ""}, "contradict each other"},
		"older sequence, same version":  {Mark{43, "2026.11", ""}, "(version 2026.11) was accepted before"},
		"older":                         {Mark{43, "2026.12", ""}, "(version 2026.12) was accepted before"},
		"same sequence, newer version": {Mark{42, "2026.9", digest.FromString("other")},
			"is not the one with the sequence 42"},
	} {
		err := sample().Order(c.mark)
		if !errors.Is(err, ErrReplayed) || !strings.Contains(err.Error(), c.want) ||
			strings.Contains(err.Error(), "contradict") != strings.Contains(c.want, "contradict") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestExpiryNamesTheClock: the clock is blamed only where it went back.
func TestExpiryNamesTheClock(t *testing.T) {
	f := Facts{Now: today, Seen: today.Add(2 * time.Hour), Platform: amd64, Systemd: 257}
	if _, err := sample().Admit(f); !errors.Is(err, ErrExpired) || !strings.Contains(err.Error(),
		"the clock says 2026-11-22T12:00:00Z") {
		t.Errorf("the clock went back: %v", err)
	}
	f.Now, f.Seen = today.Add(2*time.Hour), today
	if _, err := sample().Admit(f); !errors.Is(err, ErrExpired) || strings.Contains(err.Error(), "the clock says") {
		t.Errorf("the clock is right: %v", err)
	}
}

// TestBestImageInAnyOrder: an image for the class of the machine, and then the best variant, wherever they are listed.
func TestBestImageInAnyOrder(t *testing.T) {
	variant := func(v string) Image {
		p := amd64
		p.Variant = v
		return imageFor(p)
	}
	edge := imageFor(amd64)
	edge.Compatible = "example,edge-2"
	third := amd64
	third.Variant = "v3"
	for name, c := range map[string]struct {
		host   ocispec.Platform
		images []Image
		want   int
	}{
		"class first":        {amd64, []Image{edge, imageFor(amd64)}, 0},
		"class last":         {amd64, []Image{imageFor(amd64), edge}, 1},
		"best variant first": {third, []Image{variant("v3"), variant("v2"), variant("v1")}, 0},
		"best variant last":  {third, []Image{variant("v1"), variant("v2"), variant("v3")}, 2},
	} {
		for n := range c.images {
			c.images[n].Descriptor.Digest = digest.FromString(name + string(rune('0'+n)))
		}
		r := sample()
		r.Images = c.images
		got, err := r.Admit(Facts{Now: today, Platform: c.host, Compatible: "example,edge-2", Systemd: 257})
		if err != nil || got.Descriptor.Digest != c.images[c.want].Descriptor.Digest {
			t.Errorf("%s: %s, %v", name, got.Descriptor.Digest, err)
		}
	}
}
