package main

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/image/patches/patchestest"
	"github.com/updatectl/updatectl/image/release"
)

// makeRelease publishes a signed release in the layout: release TAG KEY=VALUE...
//
//	version, sequence, min, notes, stream   what it says
//	expires                         from now, 1h if not given
//	image, arch, class, systemd     its image, a tag of the layout, and whom it is for
//	seal                            the digest of its root
//	live                            its live patches for the running kernel, as NAME:CVE+CVE,NAME
//	build                           the build id of the kernel that these are for, instead of the running one
//	module                          what is in their modules, instead of a live patch
//	type                            another artifact type
//	unsigned                        =yes leaves the signature away
//	key                             =other signs with the key of other.pub
func (p *publisher) makeRelease(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: release TAG KEY=VALUE...")
	}
	v := map[string]string{"version": "1", "sequence": "1", "expires": "1h", "arch": runtime.GOARCH, "systemd": "0"}
	for _, arg := range args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		v[key] = value
	}
	number := func(key string) int64 {
		n, err := strconv.ParseInt(v[key], 10, 64)
		ts.Check(err)
		return n
	}
	after, err := time.ParseDuration(v["expires"])
	ts.Check(err)
	draft, err := release.New(release.Header{
		Version: v["version"], Sequence: number("sequence"), Expires: time.Now().Add(after), MinVersion: v["min"],
		Notes: v["notes"], Stream: v["stream"],
	})
	ts.Check(err)
	if v["image"] != "" {
		d, err := p.tagged(v["image"])
		ts.Check(err)
		d.Annotations, d.Platform = nil, &ocispec.Platform{OS: "linux", Architecture: v["arch"]}
		i := release.Image{Descriptor: d, Compatible: v["class"], SystemdMin: int(number("systemd"))}
		if v["seal"] != "" {
			i.RootDigest, err = fsverity.Parse(v["seal"])
			ts.Check(err)
		}
		ts.Check(draft.Add(i.Entry()))
	}
	if v["live"] != "" {
		for _, text := range strings.Split(v["live"], ",") {
			p.addLivePatch(ts, draft, text, v["build"], v["module"])
		}
	}
	content, err := draft.Bytes()
	ts.Check(err)
	if v["type"] != "" {
		content = []byte(strings.Replace(string(content), release.ArtifactType, v["type"], 1))
	}
	d, err := p.put(ocispec.MediaTypeImageIndex, content)
	ts.Check(err)
	if v["key"] == "other" {
		ts.Check(p.signWith(p.other, d.Digest))
	} else if v["unsigned"] == "" {
		ts.Check(p.sign(d.Digest))
	}
	d.Annotations = map[string]string{ocispec.AnnotationRefName: args[0]}
	ts.Check(p.list(d))
}

// testBuildID is the build id of the running kernel, as far as the tree host knows.
const testBuildID = "c0ffee0123456789c0ffee0123456789c0ffee01"

// addLivePatch publishes a live patch, given as NAME:CVE+CVE, and lists it in a release.
func (p *publisher) addLivePatch(ts *testscript.TestScript, draft *release.Draft, text, build, module string) {
	var uts unix.Utsname
	ts.Check(unix.Uname(&uts))
	l := release.LivePatch{
		KernelRelease: unix.ByteSliceToString(uts.Release[:]), KernelVersion: unix.ByteSliceToString(uts.Version[:]),
		KernelBuildID: cmp.Or(build, testBuildID),
	}
	name, fixes, _ := strings.Cut(text, ":")
	if l.Name = name; fixes != "" {
		l.Fixes = strings.Split(fixes, "+")
	}
	if module == "" {
		module = string(patchestest.Module{Name: name, Release: l.KernelRelease}.Bytes())
	}
	layer, err := p.put(patches.PartType, []byte(module))
	ts.Check(err)
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: release.LivePatchType,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{layer}}
	m.SchemaVersion = 2
	manifest, err := json.Marshal(m)
	ts.Check(err)
	l.Descriptor, err = p.put(ocispec.MediaTypeImageManifest, manifest)
	ts.Check(err)
	ts.Check(draft.Add(l.Entry()))
}

// setKernel lets the tree host show a kernel that can be patched, with the live patches NAME=STATE it has loaded:
// kernel [NAME=effective|transition|leaving]...
func setKernel(ts *testscript.TestScript, neg bool, args []string) {
	sys := ts.MkAbs("host/sys/kernel")
	ts.Check(os.RemoveAll(sys))
	ts.Check(os.MkdirAll(filepath.Join(sys, "livepatch"), 0o755))
	id, err := hex.DecodeString(testBuildID)
	ts.Check(err)
	note := binary.NativeEndian.AppendUint32(nil, uint32(len("GNU\x00")))
	note = binary.NativeEndian.AppendUint32(note, uint32(len(id)))
	note = append(binary.NativeEndian.AppendUint32(note, 3), "GNU\x00"+string(id)...)
	ts.Check(os.WriteFile(filepath.Join(sys, "notes"), note, 0o644))
	for _, arg := range args {
		name, state, _ := strings.Cut(arg, "=")
		dir := filepath.Join(sys, "livepatch", name)
		ts.Check(os.Mkdir(dir, 0o755))
		for file, set := range map[string]bool{"enabled": state != "leaving", "transition": state != "effective"} {
			ts.Check(os.WriteFile(filepath.Join(dir, file), []byte(map[bool]string{true: "1\n", false: "0\n"}[set]), 0o644))
		}
	}
}

// spoil changes a byte of every module in the layout.
func (p *publisher) spoil(ts *testscript.TestScript, neg bool, args []string) {
	files, err := filepath.Glob(filepath.Join(p.layout, "blobs/sha256/*"))
	ts.Check(err)
	spoiled := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		ts.Check(err)
		if strings.HasPrefix(string(text), elf.ELFMAG) {
			text[len(text)-1] ^= 1
			ts.Check(os.WriteFile(file, text, 0o644))
			spoiled++
		}
	}
	if spoiled == 0 {
		ts.Fatalf("there is no module to spoil")
	}
}

// exchange puts other bytes of the same size in the place of what a tag names, or of the first image of a release:
// exchange TAG [image].
func (p *publisher) exchange(ts *testscript.TestScript, neg bool, args []string) {
	d, err := p.tagged(args[0])
	ts.Check(err)
	if len(args) > 1 {
		var index ocispec.Index
		text, err := os.ReadFile(p.blob(d.Digest))
		ts.Check(err)
		ts.Check(json.Unmarshal(text, &index))
		d = index.Manifests[0]
	}
	text, err := os.ReadFile(p.blob(d.Digest))
	ts.Check(err)
	other := strings.Replace(string(text), "sha256:", "sha256:0", 1)
	ts.Check(os.WriteFile(p.blob(d.Digest), []byte(other[:len(text)]), 0o644))
}

// serveAs lists what a tag names under another media type: serve-as TAG manifest|index|list.
func (p *publisher) serveAs(ts *testscript.TestScript, neg bool, args []string) {
	d, err := p.tagged(args[0])
	ts.Check(err)
	d.MediaType = map[string]string{
		"manifest": ocispec.MediaTypeImageManifest, "index": ocispec.MediaTypeImageIndex,
		"list": "application/vnd.docker.distribution.manifest.list.v2+json",
	}[args[1]]
	ts.Check(p.list(d))
}

// tagged finds a tag of the layout.
func (p *publisher) tagged(tag string) (ocispec.Descriptor, error) {
	text, err := os.ReadFile(filepath.Join(p.layout, "index.json"))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == tag {
			return d, nil
		}
	}
	return ocispec.Descriptor{}, errors.New("no tag " + tag)
}

func (p *publisher) blob(d digest.Digest) string {
	return filepath.Join(p.layout, "blobs", "sha256", d.Encoded())
}

// changeRecord changes the record of the tree host: record good makes the staged root a good one, record seen=DURATION
// has the host seen a time so much later than now.
func changeRecord(ts *testscript.TestScript, neg bool, args []string) {
	file := ts.MkAbs("host/var/lib/updatectl/state.json")
	text, err := os.ReadFile(file)
	ts.Check(err)
	var record map[string]any
	ts.Check(json.Unmarshal(text, &record))
	if after, ok := strings.CutPrefix(args[0], "seen="); ok {
		d, err := time.ParseDuration(after)
		ts.Check(err)
		record["seen"] = time.Now().Add(d)
	} else if reason, ok := strings.CutPrefix(args[0], "bad="); ok {
		record["bad"] = map[string]any{record["staged"].(string): map[string]any{"reason": reason, "at": time.Now()}}
	} else {
		record["good"] = append(record["good"].([]any), record["staged"])
	}
	text, err = json.Marshal(record)
	ts.Check(err)
	ts.Check(os.WriteFile(file, text, 0o600))
}

// follow lets the tree host follow another reference: follow REFERENCE [MIRROR...].
func follow(ts *testscript.TestScript, neg bool, args []string) {
	file := ts.MkAbs("host/etc/updatectl/updatectl.toml")
	text, err := os.ReadFile(file)
	ts.Check(err)
	var lines []string
	for _, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "image = "):
			mirrors, err := json.Marshal(append([]string{}, args[1:]...)) // an array of TOML, too
			ts.Check(err)
			lines = append(lines, "image = "+strconv.Quote(args[0]), "mirrors = "+string(mirrors))
		case !strings.HasPrefix(line, "mirrors = "):
			lines = append(lines, line)
		}
	}
	ts.Check(os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644))
}

// registry serves the layout by HTTP, and lies. In the repository first/A/then/B any tag that is none of the layout's
// is A when it is asked for the first time, and B from then on. In wrong/A/for/B the content of A is served for B's
// digest.
type registry struct {
	p     *publisher
	mu    sync.Mutex
	asked map[string]bool
}

func (p *publisher) serve(env *testscript.Env) {
	s := httptest.NewServer(&registry{p: p, asked: map[string]bool{}})
	env.Defer(s.Close)
	env.Setenv("REGISTRY", strings.TrimPrefix(s.URL, "http://"))
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	parts := strings.Split(strings.TrimPrefix(req.URL.Path, "/v2/"), "/")
	if len(parts) != 6 || parts[4] == "referrers" { // first/A/then/B/manifests/TAG
		w.WriteHeader(http.StatusNotFound)
		return
	}
	mode, a, b, want := parts[0], parts[1], parts[3], parts[5]
	d, served := r.find(mode, a, b, want)
	if served == "" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	content, err := os.ReadFile(r.p.blob(served))
	if err != nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if d.MediaType != "" {
		w.Header().Set("Content-Type", d.MediaType)
	}
	w.Header().Set("Docker-Content-Digest", d.Digest.String())
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	if req.Method == http.MethodGet {
		w.Write(content)
	}
}

// find returns what is asked for, and which content is served for it.
func (r *registry) find(mode, a, b, want string) (asked ocispec.Descriptor, served digest.Digest) {
	if d := digest.Digest(want); d.Validate() == nil {
		asked, served = ocispec.Descriptor{Digest: d, MediaType: r.mediaType(d)}, d
		if right, err := r.p.tagged(b); mode == "wrong" && err == nil && right.Digest == d {
			wrong, _ := r.p.tagged(a)
			served = wrong.Digest
		}
		return asked, served
	}
	d, err := r.p.tagged(want)
	if err != nil && !strings.HasPrefix(want, "sha256-") {
		name := a
		if mode == "wrong" || r.asked[mode+a+b] {
			name = b
		}
		r.asked[mode+a+b] = true
		d, _ = r.p.tagged(name)
	}
	return d, d.Digest
}

func (r *registry) mediaType(d digest.Digest) string {
	text, _ := os.ReadFile(r.p.blob(d))
	var self struct {
		MediaType string `json:"mediaType"`
	}
	json.Unmarshal(text, &self) // a layer has none
	return self.MediaType
}
