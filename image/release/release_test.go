package release

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
)

func TestParseReadsWhatADraftSays(t *testing.T) {
	text := must(full(t).Bytes())
	r, err := Parse(vouched(t, text, ocispec.MediaTypeImageIndex))
	if err != nil {
		t.Fatal(err)
	}
	if r.Digest != digest.FromBytes(text) || r.Version != "2026.11.1" || r.Sequence != 42 ||
		r.MinVersion != "2026.6" || r.Notes != "fixes\n\tmore" {
		t.Errorf("read %+v", r.Header)
	}
	if !r.Expires.Equal(today.AddDate(0, 1, 0)) ||
		!reflect.DeepEqual(*r.Rollout, Rollout{Start: today, Duration: 72 * time.Hour, Steps: []int{1, 10, 100}}) {
		t.Errorf("expires %s, rollout %+v", r.Expires, r.Rollout)
	}
	if len(r.Images) != 3 || len(r.LivePatches) != 1 || len(r.Deltas) != 1 {
		t.Fatalf("%d images, %d live patches, %d deltas", len(r.Images), len(r.LivePatches), len(r.Deltas))
	}
	if i := r.Images[0]; !i.Sealed() || i.KernelRelease != "6.12.48+deb13-amd64" || i.Compatible != "example,edge-2" ||
		i.SystemdMin != 254 || len(i.Fixes) != 1 {
		t.Errorf("image %+v", i)
	}
	p := r.LivePatches[0]
	p.Descriptor = somePatch.Descriptor
	if !reflect.DeepEqual(p, somePatch) {
		t.Errorf("live patch %+v", p)
	}
}

// TestMarks: a rollout that is paused or stopped is written and read as such.
func TestMarks(t *testing.T) {
	for _, r := range []Rollout{
		{Start: today, Duration: time.Hour, Paused: "we look"},
		{Start: today, Steps: []int{100}, Stopped: strings.Repeat("é", maxMark/2)},
	} {
		d := must(New(Header{Version: "1", Sequence: 1, Expires: today, Rollout: &r}))
		got, err := Read(must(d.Bytes()))
		if err != nil || !reflect.DeepEqual(*got.Rollout, r) {
			t.Errorf("read %+v, %v; want %+v", got, err, r)
		}
	}
}

// A newer publisher can write what this version does not know.
func TestUnknownIsPassedOver(t *testing.T) {
	text := changed(t, func(x *ocispec.Index) {
		x.Annotations["dev.updatectl.mood"] = "good"
		x.Manifests[0].Annotations["dev.updatectl.colour"] = "red"
		d := content("something new")
		d.ArtifactType = "application/vnd.updatectl.firmware.v1"
		nested := content("index")
		nested.MediaType = ocispec.MediaTypeImageIndex
		x.Manifests = append(x.Manifests, d, nested)
	})
	r, err := Read(text)
	if err != nil || len(r.Images) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	d, err := Open(text)
	if err != nil {
		t.Fatal(err)
	}
	again := must(d.Bytes())
	if !strings.Contains(string(again), "dev.updatectl.mood") || !strings.Contains(string(again), "firmware") {
		t.Error("a draft lost what it does not know")
	}
}

func TestMalformedReleases(t *testing.T) {
	on := func(name, value string) func(*ocispec.Index) {
		return func(x *ocispec.Index) { x.Annotations[name] = value }
	}
	in := func(entry int, name, value string) func(*ocispec.Index) {
		return func(x *ocispec.Index) { x.Manifests[entry].Annotations[name] = value }
	}
	without := func(entry int, name string) func(*ocispec.Index) {
		return func(x *ocispec.Index) {
			if entry < 0 {
				delete(x.Annotations, name)
			} else {
				delete(x.Manifests[entry].Annotations, name)
			}
		}
	}
	const sealed, plain, patch, deltas = 0, 1, 3, 4
	for name, c := range map[string]struct {
		change func(*ocispec.Index)
		want   string
	}{
		"no version":           {without(-1, AnnotationVersion), "version is missing"},
		"no sequence":          {without(-1, AnnotationSequence), "sequence is missing"},
		"no expiry":            {without(-1, AnnotationExpires), "expires is missing"},
		"empty version":        {on(AnnotationVersion, ""), "it is not a version"},
		"version with a space": {on(AnnotationVersion, "1 2"), "it is not a version"},
		"version with escapes": {on(AnnotationVersion, "1\x1b[2J"), `"1\x1b[2J": it is not a version`},
		"long version":         {on(AnnotationVersion, strings.Repeat("1", maxWord+1)), "at most 64 characters"},
		"sequence 0":           {on(AnnotationSequence, "0"), "it is not a number from 1"},
		"negative sequence":    {on(AnnotationSequence, "-1"), "it is not a number from 1"},
		"signed sequence":      {on(AnnotationSequence, "+1"), "it is not a number from 1"},
		"padded sequence":      {on(AnnotationSequence, "042"), "it is not a number from 1"},
		"inexact sequence":     {on(AnnotationSequence, "9007199254740992"), "it is not a number from 1"},
		"endless sequence":     {on(AnnotationSequence, strings.Repeat("9", 100)), "it is not a number from 1"},
		"sequence in words":    {on(AnnotationSequence, "4e1"), "it is not a number from 1"},
		"expiry in words":      {on(AnnotationExpires, "tomorrow"), "RFC 3339"},
		"expiry without zone":  {on(AnnotationExpires, "2027-01-31T12:00:00"), "RFC 3339"},
		"expiry, lower case":   {on(AnnotationExpires, "2027-01-31t12:00:00z"), "RFC 3339"},
		"expiry in year 0":     {on(AnnotationExpires, "0000-01-01T00:00:00Z"), "RFC 3339"},
		"barrier":              {on(AnnotationMinVersion, "../../x"), "min-version is"},
		"barrier above itself": {on(AnnotationMinVersion, "2026.11.1"), "not older than the release itself"},
		"notes too long":       {on(AnnotationNotes, strings.Repeat("x", MaxNotes+1)), "more than 16384"},
		"notes with escapes":   {on(AnnotationNotes, "\x1b]0;gone\a"), "unprintable character U+001B"},
		"notes turned around":  {on(AnnotationNotes, "a\u202eb"), "unprintable character U+202E"},
		"rollout in words":     {on(AnnotationRollout, "soon"), "it is not a JSON object"},
		"rollout key twice": {on(AnnotationRollout,
			`{"start":"2026-11-22T03:00:00Z","duration":"1h","Start":"2027-11-22T03:00:00Z"}`),
			`"Start", which is spelled "start"`},
		"rollout with more": {on(AnnotationRollout, `{"start":"2026-11-22T03:00:00Z","duration":"1h","speed":9}`),
			"unknown field"},
		"rollout and more": {on(AnnotationRollout, `{"start":"2026-11-22T03:00:00Z","duration":"1h"} {}`),
			"something after the JSON object"},
		"rollout cut short":    {on(AnnotationRollout, `{"start":"2026-11-22T03:00:00Z"`), "it is cut short"},
		"rollout, no start":    {on(AnnotationRollout, `{"duration":"1h"}`), "it has no start"},
		"rollout, no duration": {on(AnnotationRollout, `{"start":"2026-11-22T03:00:00Z"}`), "its duration is not"},
		"rollout too long": {on(AnnotationRollout, `{"start":"2026-11-22T03:00:00Z","duration":"9000h"}`),
			"its duration is not"},
		"rollout shrinks": {on(AnnotationRollout,
			`{"start":"2026-11-22T03:00:00Z","duration":"1h","steps":[10,5,100]}`), "steps must grow"},
		"rollout above all": {on(AnnotationRollout,
			`{"start":"2026-11-22T03:00:00Z","duration":"1h","steps":[50,101]}`), "steps must grow"},
		"rollout to a half": {on(AnnotationRollout,
			`{"start":"2026-11-22T03:00:00Z","duration":"1h","steps":[50]}`), "last step must be 100"},
		"rollout paused and stopped": {on(AnnotationRollout,
			`{"start":"2026-11-22T03:00:00Z","duration":"1h","paused":"a","stopped":"b"}`), "both paused and stopped"},
		"rollout with an essay": {on(AnnotationRollout, `{"start":"2026-11-22T03:00:00Z","duration":"1h","paused":"`+
			strings.Repeat("x", maxMark+1)+`"}`), "not a line of at most 512 bytes"},
		"rollout with a second line": {on(AnnotationRollout,
			`{"start":"2026-11-22T03:00:00Z","duration":"1h","stopped":"a\nb"}`), "not a line of at most 512 bytes"},
		"rollout with escapes": {on(AnnotationRollout,
			`{"start":"2026-11-22T03:00:00Z","duration":"1h","stopped":"\u001b]0;x"}`), "unprintable character U+001B"},
		"rollout in atoms": {on(AnnotationRollout, `{"start":"2026-11-22T03:00:00Z","duration":"1h","steps":[`+
			strings.Repeat("1,", maxSteps)+`100]}`), "more than 32"},
		"root digest": {in(sealed, AnnotationRootDigest, "sha256:00"), "not an fs-verity digest"},
		"root digest, shouted": {in(sealed, AnnotationRootDigest, strings.Repeat("AB", 32)),
			"not an fs-verity digest"},
		"root digest of zeros": {in(sealed, AnnotationRootDigest, strings.Repeat("0", 64)), "not an fs-verity digest"},
		"kernel":               {in(sealed, AnnotationKernelRelease, "../6.12"), "the release of a kernel"},
		"build of a kernel":    {in(sealed, AnnotationKernelVersion, "#1\nSMP"), "what uname -v prints"},
		"machine class":        {in(sealed, AnnotationCompatible, "two words"), "a machine class"},
		"fixes of an image":    {in(sealed, AnnotationFixes, "CVE-1"), `"CVE-1" is not a CVE number`},
		"empty machine class":  {in(sealed, AnnotationCompatible, ""), "a machine class"},
		"systemd":              {in(sealed, AnnotationSystemdMin, "v254"), "it is not a number"},
		"image twice": {func(x *ocispec.Index) {
			d := content("other image")
			d.Platform = &amd64
			x.Manifests = append(x.Manifests, d)
		}, "two images for amd64"},
		"image twice for a class": {func(x *ocispec.Index) {
			x.Manifests[plain].Annotations = map[string]string{AnnotationCompatible: "example,edge-2"}
		}, "two images for amd64 of the machine class example,edge-2"},
		"no platform": {func(x *ocispec.Index) { x.Manifests[plain].Platform = nil },
			"does not name its platform"},
		"half a platform": {func(x *ocispec.Index) { x.Manifests[plain].Platform.Architecture = "" },
			"does not name its platform"},
		"no digest": {func(x *ocispec.Index) { x.Manifests[plain].Digest = "" }, "digest"},
		"other algorithm": {func(x *ocispec.Index) { x.Manifests[plain].Digest = digest.SHA512.FromString("x") },
			"not a sha256 digest"},
		"made-up algorithm": {
			func(x *ocispec.Index) { x.Manifests[plain].Digest = "md5:d41d8cd98f00b204e9800998ecf8427e" },
			"unsupported digest algorithm"},
		"negative size": {func(x *ocispec.Index) { x.Manifests[plain].Size = -1 }, "has the size -1"},
		"endless size": {func(x *ocispec.Index) { x.Manifests[plain].Size = verify.MaxManifest + 1 },
			"has the size 4194305"},
		"patch of no kernel": {without(patch, AnnotationKernelBuildID), "build-id is missing"},
		"patch, no version":  {without(patch, AnnotationKernelVersion), "kernel.version is missing"},
		"patch, no release":  {without(patch, AnnotationKernelRelease), "kernel.release is missing"},
		"patch, no name":     {without(patch, AnnotationLivePatchName), "name is missing"},
		"patch in a path":    {in(patch, AnnotationLivePatchName, "../../etc/x"), "the name of a kernel module"},
		"patch, build id":    {in(patch, AnnotationKernelBuildID, "C0FFEE"), "a build id"},
		"patch, two lines":   {in(patch, AnnotationKernelVersion, "#1\nSMP"), "what uname -v prints"},
		"patch, fixes":       {in(patch, AnnotationFixes, "CVE-2026-1234,GHSA-1"), `"GHSA-1" is not a CVE number`},
		"patch, fixed twice": {in(patch, AnnotationFixes, "CVE-2026-1234, CVE-2026-1234"), "twice"},
		"patch twice": {func(x *ocispec.Index) { x.Manifests = append(x.Manifests, x.Manifests[patch]) },
			"kpatch_1 twice"},
		"patch as index": {func(x *ocispec.Index) { x.Manifests[patch].MediaType = ocispec.MediaTypeImageIndex },
			"not a manifest"},
		"delta twice": {func(x *ocispec.Index) { x.Manifests = append(x.Manifests, x.Manifests[deltas]) },
			"twice"},
		"delta of nothing": {func(x *ocispec.Index) { x.Manifests[deltas].Size = 0 }, "has the size 0"},
		"too many entries": {func(x *ocispec.Index) {
			for n := range MaxEntries {
				x.Manifests = append(x.Manifests, content(fmt.Sprint(n)))
			}
		}, "more than 1024"},
		"no artifact type": {func(x *ocispec.Index) { x.ArtifactType = "" }, "its artifact type is \"\""},
		"other artifact type": {func(x *ocispec.Index) { x.ArtifactType = "application/vnd.example.v1" },
			"its artifact type is"},
		"no media type": {func(x *ocispec.Index) { x.MediaType = "" }, "its media type is"},
	} {
		t.Run(name, func(t *testing.T) {
			text := changed(t, c.change)
			if r, err := Read(text); !errors.Is(err, verify.ErrMalformed) || !contains(err, c.want) {
				t.Errorf("read %v, %v; want malformed with %q", r, err, c.want)
			}
			if !Is(text) {
				t.Error("it can be taken for an ordinary index")
			}
		})
	}
}

func TestNewerFormat(t *testing.T) {
	text := changed(t, func(x *ocispec.Index) { x.ArtifactType = family + "v2" })
	if _, err := Read(text); !errors.Is(err, ErrIncompatible) || !contains(err, "newer updatectl") || !Is(text) {
		t.Errorf("%v", err)
	}
}

func TestOrdinaryIndexIsNoRelease(t *testing.T) {
	text := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],` +
		`"annotations":{"org.opencontainers.image.version":"1"}}`)
	if Is(text) || Is([]byte("{")) {
		t.Error("it was taken for a release")
	}
	if _, err := Parse(vouched(t, text, ocispec.MediaTypeImageIndex)); !errors.Is(err, verify.ErrMalformed) {
		t.Errorf("%v", err)
	}
}

// A Docker manifest list has no artifact type. One that has the type of a release is neither.
func TestDockerListIsNoRelease(t *testing.T) {
	text := changed(t, func(x *ocispec.Index) { x.MediaType = verify.DockerManifestList })
	if _, err := Parse(vouched(t, text, verify.DockerManifestList)); !errors.Is(err, verify.ErrMalformed) ||
		!contains(err, "not an OCI index") {
		t.Errorf("%v", err)
	}
}

// What hosts would refuse cannot be written, and an addition that is refused changes nothing.
func TestDraftRefusesWhatHostsWould(t *testing.T) {
	if _, err := New(Header{Version: "1.0", Sequence: 0, Expires: today}); !errors.Is(err, verify.ErrMalformed) ||
		!contains(err, "sequence") {
		t.Errorf("sequence 0: %v", err)
	}
	if _, err := New(Header{Version: "1.0", Sequence: 1}); !errors.Is(err, verify.ErrMalformed) ||
		!contains(err, "expires") {
		t.Errorf("no expiry: %v", err)
	}
	d := full(t)
	before := string(must(d.Bytes()))
	if err := d.Add(imageFor(amd64).Entry()); !errors.Is(err, verify.ErrMalformed) || !contains(err, "two images") {
		t.Errorf("second image: %v", err)
	}
	if after := string(must(d.Bytes())); after != before {
		t.Errorf("the draft became %s", after)
	}
}

// An entry keeps the annotations of the builder, and not those of another release.
func TestEntryDropsOurOldAnnotations(t *testing.T) {
	i := imageFor(amd64)
	i.Descriptor.Annotations = map[string]string{AnnotationCompatible: "old", ocispec.AnnotationRefName: "stable",
		"org.example": "kept"}
	if got := i.Entry().Annotations; len(got) != 1 || got["org.example"] != "kept" {
		t.Errorf("annotations %v", got)
	}
	if len(i.Descriptor.Annotations) != 3 {
		t.Error("the image itself was changed")
	}
}

func FuzzRelease(f *testing.F) {
	seeds := [][]byte{
		must(full(f).Bytes()),
		changed(f, func(x *ocispec.Index) { x.Annotations[AnnotationSequence] = "0" }),
		changed(f, func(x *ocispec.Index) { x.ArtifactType = family + "v2" }),
		[]byte(`{"artifactType":"application/vnd.updatectl.release.v1","manifests":null}`),
	}
	for _, s := range seeds {
		if len(s) == 0 {
			f.Fatal("an empty seed")
		}
		f.Add(s)
	}
	facts := Facts{Now: today, Platform: amd64, Systemd: 257, Mark: Mark{Sequence: 7, Version: "2026.1"}}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Read(text)
		if err != nil {
			if !errors.Is(err, verify.ErrMalformed) && !errors.Is(err, ErrIncompatible) {
				t.Errorf("%v has no class", err)
			}
			return
		}
		if !Is(text) || r.Sequence < 1 || r.Sequence > MaxSequence || r.Version == "" || r.Expires.IsZero() ||
			len(r.Images) > MaxEntries {
			t.Errorf("read %+v", r)
		}
		if i, err := r.Admit(facts); err == nil && (i.Descriptor.Platform.Architecture != "amd64" || r.Sequence <= 7) {
			t.Errorf("admitted %+v of %+v", i, r)
		}
		d, err := Open(text)
		if err != nil {
			t.Fatalf("read and not opened: %v", err)
		}
		again, err := Read(must(d.Bytes()))
		if err != nil {
			t.Fatalf("written and not read: %v", err)
		}
		again.Digest = r.Digest
		if !reflect.DeepEqual(again, r) {
			t.Errorf("read %+v, and %+v after writing it", r, again)
		}
	})
}

func FuzzAnnotations(f *testing.F) {
	seeds := []Header{full(f).header(f), {Version: "1", Sequence: 1, Expires: today}}
	for _, h := range seeds {
		f.Add(h.Version, fmt.Sprint(h.Sequence), h.Expires.Format(time.RFC3339),
			`{"start":"2026-11-22T03:00:00Z","duration":"72h","steps":[1,100]}`, h.MinVersion, h.Notes,
			"CVE-2026-1234, CVE-2026-2345")
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, version, sequence, expires, rollout, barrier, notes, fixes string) {
		h, err := readHeader(map[string]string{
			AnnotationVersion: version, AnnotationSequence: sequence, AnnotationExpires: expires,
			AnnotationRollout: rollout, AnnotationMinVersion: barrier, AnnotationNotes: notes,
		})
		if _, ferr := parseFixes(fixes); ferr == nil && !strings.HasPrefix(strings.TrimSpace(fixes), "CVE-") {
			t.Errorf("fixes %q", fixes)
		}
		if err != nil {
			if !errors.Is(err, verify.ErrMalformed) {
				t.Errorf("%v has no class", err)
			}
			return
		}
		if strings.ContainsAny(h.Version+h.MinVersion+h.Notes, "\x1b\x00\x07\r") {
			t.Errorf("a terminal would obey %+v", h)
		}
		if last := len(h.Rollout.Steps) - 1; last >= 0 && h.Rollout.Steps[last] != 100 {
			t.Errorf("rollout %+v", h.Rollout)
		}
		d, err := New(h)
		if err != nil {
			t.Fatalf("read and not written: %+v: %v", h, err)
		}
		if again := d.header(t); again.Version != h.Version || again.Sequence != h.Sequence ||
			!again.Expires.Equal(h.Expires.Truncate(time.Second)) {
			t.Errorf("read %+v, and %+v after writing it", h, again)
		}
	})
}

// FuzzLivePatch reads the annotations that bind a live patch to a build of a kernel.
func FuzzLivePatch(f *testing.F) {
	seed := somePatch.Entry().Annotations
	if len(seed) == 0 {
		f.Fatal("the corpus is empty")
	}
	f.Add(seed[AnnotationLivePatchName], seed[AnnotationKernelRelease], seed[AnnotationKernelVersion],
		seed[AnnotationKernelBuildID], seed[AnnotationFixes])
	f.Add("kpatch-1", "", "\x1b[2J", "c0ffee", "CVE-2026-1234,CVE-2026-1234")
	f.Fuzz(func(t *testing.T, name, kernel, version, build, fixes string) {
		d := somePatch.Entry()
		d.Annotations = map[string]string{
			AnnotationLivePatchName: name, AnnotationKernelRelease: kernel, AnnotationKernelVersion: version,
			AnnotationKernelBuildID: build, AnnotationFixes: fixes,
		}
		var r Release
		if err := r.addLivePatch(d); err != nil {
			if !errors.Is(err, verify.ErrMalformed) {
				t.Errorf("%v has no class", err)
			}
			return
		}
		p := r.LivePatches[0]
		if p.Name == "" || p.KernelRelease == "" ||
			strings.ContainsAny(p.Name+p.KernelRelease+p.KernelBuildID, "/\x00\n ") ||
			strings.ContainsAny(p.KernelVersion, "\x1b\n") {
			t.Errorf("read %+v", p)
		}
		if err := r.addLivePatch(d); !errors.Is(err, verify.ErrMalformed) {
			t.Errorf("the same twice: %v", err)
		}
	})
}

// header reads a draft back.
func (d *Draft) header(t testing.TB) Header {
	t.Helper()
	r, err := Read(must(d.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return r.Header
}
