package agent

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/event/eventtest"
	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/image/patches/patchestest"
	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/livepatch"
	"github.com/updatectl/updatectl/switcher/rootfs"
	"github.com/updatectl/updatectl/switcher/testtree"
	"github.com/updatectl/updatectl/verify"
)

// patchHost is a host with a publisher of live patches and a kernel made of files.
type patchHost struct {
	*Agent
	t      *testing.T
	layout string
	key    *ecdsa.PrivateKey
	facts  facts.Facts
	// refuse is what the kernel answers to the module of this name; with stall, none becomes effective.
	refuse map[string]error
	stall  bool
	stalls map[string]bool // the names of those that do not become effective
	// stacks are the names of those that are not cumulative: they do not replace what the kernel has.
	stacks map[string]bool
	silent bool // as before Linux 6.11, the kernel does not say whether one is cumulative
	loads  []string
}

func newPatchHost(t *testing.T) *patchHost {
	h := &patchHost{
		Agent: testAgent(t), t: t, layout: filepath.Join(t.TempDir(), "layout"), facts: hosttest.Kernel,
		refuse: map[string]error{}, stalls: map[string]bool{}, stacks: map[string]bool{},
	}
	h.Live.Kernel = livepatch.Kernel{Root: h.Machine.Root, Insert: h.insert, Remove: h.remove, Pause: time.Millisecond}
	h.Config.LivePatch.Deadline = config.Duration(250 * time.Millisecond)
	h.Config.Source.Image = "oci:" + h.layout + ":stable"
	h.Config.Verify.Keys = []string{"/etc/updatectl/keys/release.pub"}
	testtree.File(t, h.Machine.Root, "/sys/kernel/livepatch/.keep", "")
	h.newKey()
	return h
}

// newKey gives the publisher another key. The host trusts only that key from the next command on.
func (h *patchHost) newKey() {
	var err error
	h.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h.check(err)
	der, err := x509.MarshalPKIXPublicKey(h.key.Public())
	h.check(err)
	testtree.File(h.t, h.Machine.Root, "/etc/updatectl/keys/release.pub",
		string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	next := On(h.Machine, h.Config, h.Log)
	next.Live.Kernel = h.Live.Kernel
	h.Agent = next
}

func (h *patchHost) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *patchHost) insert(module []byte) error {
	m, err := patches.Parse(module)
	h.check(err)
	h.loads = append(h.loads, m.Name)
	if err := h.refuse[m.Name]; err != nil {
		return err
	}
	rec, err := h.Records.Read()
	h.check(err)
	if rec.Loading == nil || rec.Loading.Name != m.Name {
		h.t.Errorf("while %s is being loaded the record says %+v", m.Name, rec.Loading)
	}
	h.file("/sys/module/"+m.Name+"/refcnt", "1")
	if m.Note != nil {
		h.file("/sys/module/"+m.Name+"/notes/.note.gnu.build-id", string(m.Note))
	}
	stall := h.stall || h.stalls[m.Name]
	if !h.silent {
		h.file("/sys/kernel/livepatch/"+m.Name+"/replace", map[bool]string{true: "1"}[!h.stacks[m.Name]])
	}
	h.file("/sys/kernel/livepatch/"+m.Name+"/transition", map[bool]string{true: "1"}[stall])
	h.file("/sys/kernel/livepatch/"+m.Name+"/enabled", "1")
	if stall {
		go h.letGo(m.Name)
		return nil
	}
	if others, _ := filepath.Glob(h.Path("/sys/kernel/livepatch/*/enabled")); !h.stacks[m.Name] {
		for _, other := range others {
			if name := filepath.Base(filepath.Dir(other)); name != m.Name {
				h.switchOff(name)
			}
		}
	}
	return nil
}

// letGo is what the kernel does when a transition is reversed.
func (h *patchHost) letGo(name string) {
	for {
		enabled, err := os.ReadFile(h.Path("/sys/kernel/livepatch/" + name + "/enabled"))
		if err != nil {
			return
		}
		if string(enabled) == "0" {
			os.RemoveAll(h.Path("/sys/kernel/livepatch/" + name))
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (h *patchHost) file(name, text string) { testtree.File(h.t, h.Machine.Root, name, text) }

// switchOff is what the kernel does to a live patch that was replaced or disabled.
func (h *patchHost) switchOff(name string) {
	h.check(os.RemoveAll(h.Path("/sys/kernel/livepatch/" + name)))
}

// remove answers as the kernel does: a live patch must be disabled before its module can be removed.
func (h *patchHost) remove(name string) error {
	enabled, err := os.ReadFile(h.Path("/sys/kernel/livepatch/" + name + "/enabled"))
	if err == nil && string(enabled) == "1" {
		return unix.EWOULDBLOCK
	}
	h.switchOff(name)
	return os.RemoveAll(h.Path("/sys/module/" + name))
}

// listing is a live patch to publish, by default for the kernel of these tests.
type listing struct {
	name, fixes               string
	release, version, buildID string
	note                      string // the build id of the module
}

func (h *patchHost) publish(sequence int64, all ...listing) {
	h.t.Helper()
	h.publishRelease(release.Header{Version: fmt.Sprint(sequence), Sequence: sequence}, all...)
}

func (h *patchHost) publishRelease(header release.Header, all ...listing) {
	h.t.Helper()
	ctx, reference := context.Background(), h.Config.Source.Image
	header.Expires = time.Now().Add(time.Hour)
	_, err := publish.NewRelease(ctx, reference, header)
	h.check(err)
	for _, l := range all {
		p := release.LivePatch{
			KernelRelease: cmp.Or(l.release, hosttest.Kernel.KernelRelease),
			KernelVersion: cmp.Or(l.version, hosttest.Kernel.KernelVersion),
			KernelBuildID: cmp.Or(l.buildID, hosttest.Kernel.KernelBuildID),
		}
		if l.fixes != "" {
			p.Fixes = strings.Split(l.fixes, ",")
		}
		file := filepath.Join(h.t.TempDir(), l.name+".ko")
		h.check(os.WriteFile(file, patchestest.Module{Name: l.name, Release: p.KernelRelease, Note: l.note}.Bytes(), 0o644))
		_, err := publish.AddLivePatch(ctx, reference, file, p)
		h.check(err)
	}
	seal := publish.Seal{Signer: h.key, Form: verify.FormBundle, Time: time.Now()}
	_, err = publish.Sign(ctx, reference, seal, publish.Options{})
	h.check(err)
}

// apply is livepatch apply with the record on the disk.
func (h *patchHost) apply(o LivePatchOptions) (LivePatchReport, error) {
	h.t.Helper()
	rec, err := h.Records.Read()
	h.check(err)
	return (&session{Agent: h.Agent, facts: h.facts, rec: rec}).livePatchApply(context.Background(), o)
}

func (h *patchHost) revert(name string) (LivePatchReport, error) {
	h.t.Helper()
	rec, err := h.Records.Read()
	h.check(err)
	return (&session{Agent: h.Agent, facts: h.facts, rec: rec}).livePatchRevert(context.Background(), name)
}

// states returns a survey as text.
func states(list []live.LivePatch) string {
	var text []string
	for _, p := range list {
		text = append(text, p.Name+" "+string(p.State))
	}
	return strings.Join(text, ", ")
}

// boot is a full reboot with the same kernel: nothing is loaded.
func (h *patchHost) boot() {
	h.facts.BootID += "+"
	h.check(errors.Join(os.RemoveAll(h.Path("/sys/module")), os.RemoveAll(h.Path("/sys/kernel/livepatch"))))
	h.file("/sys/kernel/livepatch/.keep", "")
	h.loads = nil
}

// TestLivePatchLife: a live patch is loaded, and after a full reboot loaded again, without the source.
func TestLivePatchLife(t *testing.T) {
	h := newPatchHost(t)
	h.publish(1,
		listing{name: "fix_1", fixes: "CVE-2026-0001"},
		listing{name: "other_release", release: "6.12.49"},
		listing{name: "other_build", version: "#2 SMP"},
		listing{name: "other_id", buildID: "0123456789abcdef"},
		listing{name: "fix_2", fixes: "CVE-2026-0001,CVE-2026-0002"})
	r, err := h.apply(LivePatchOptions{})
	if err != nil || !slices.Equal(r.Loaded, []string{"fix_2"}) ||
		states(r.Patches) != "fix_1 superseded, fix_2 effective" {
		t.Fatalf("%v, %s, %v", r.Loaded, states(r.Patches), err)
	}
	if v := r.Patches[1].Vouchers; len(v) != 1 || v[0].Signer != "release.pub" {
		t.Errorf("vouched for by %+v", v)
	}
	rec, err := h.Records.Read()
	if err != nil || rec.Mark.Sequence != 1 || rec.Loading != nil {
		t.Errorf("%+v, %v", rec, err)
	}

	h.check(os.RemoveAll(h.layout)) // the network is not there yet
	h.boot()
	if r, err = h.apply(LivePatchOptions{Stored: true, Unattended: true}); err != nil ||
		!slices.Equal(h.loads, []string{"fix_2"}) {
		t.Errorf("after a boot: loaded %v, %v", h.loads, err)
	}
	h.loads = nil
	if r, err = h.apply(LivePatchOptions{Stored: true}); err != nil || len(h.loads)+len(r.Loaded) != 0 {
		t.Errorf("a second time: %v, %v", h.loads, err)
	}
	var recorded []string
	events, err := h.Records.History()
	h.check(err)
	for _, e := range events {
		recorded = append(recorded, e.Event+" "+e.LivePatch)
	}
	if want := []string{"live patch effective fix_2", "live patch effective fix_2"}; !slices.Equal(recorded, want) {
		t.Errorf("history %q", recorded)
	}
}

// TestReleaseOfLivePatchesAlone: a release without an image changes no root, and is accepted like any other.
func TestReleaseOfLivePatchesAlone(t *testing.T) {
	h := newPatchHost(t)
	h.publish(1, listing{name: "fix_1", fixes: "CVE-2026-0001"})
	ctx := context.Background()
	for _, c := range []struct {
		running string
		good    []string
		root    string
	}{
		{"host", []string{"host"}, "host"},
		{"sha256-1", []string{"host", "sha256-1"}, "sha256-1"},
		{"host", []string{"host", "sha256-1"}, "sha256-1"}, // a full reboot landed on the host root
	} {
		h.facts.Root = c.running
		rec := &record.Record{Good: c.good, Accepted: map[string]release.Mark{}}
		p, err := h.fetchVerified(ctx, "", h.facts, rec, false)
		if err != nil || p.Image != nil || p.ID() != "" {
			t.Fatalf("%+v, %v", p, err)
		}
		v, err := h.available(ctx, p, h.facts, rec)
		if err != nil || v.Root != c.root || v.Newer != (c.root != c.running) || !v.Live ||
			states(v.LivePatches) != "fix_1 not loaded" || v.Download != 0 {
			t.Errorf("%+v, %v", v, err)
		}
		if d := live.Decide(v.LivePatches); d.Level != level.Live || len(d.Checks) != 1 ||
			d.Checks[0].Name != "live patch fix_1" {
			t.Errorf("%+v", d)
		}
		if !rec.Accept(p.Offered(rec.Mark), time.Now()) || rec.Mark.Sequence != 1 || len(rec.Accepted) != 0 {
			t.Errorf("accepted as %+v", rec)
		}
		if _, done, err := (&session{Agent: h.Agent, facts: h.facts, rec: rec}).fetch(ctx, ApplyOptions{}); err != nil ||
			done.Root != c.root || done.From != c.running {
			t.Errorf("%+v, %v", done, err)
		}
	}

	h.facts.Root = "host"
	rec, err := h.Records.Read()
	h.check(err)
	p, err := h.fetchVerified(ctx, "", h.facts, rec, false)
	h.check(err)
	h.check(h.Live.KeepEnabled(ctx, p, h.facts))
	s, done := &session{Agent: h.Agent, facts: h.facts, rec: rec}, Applied{}
	if err := s.applyLive(ctx, p, &done, ""); err != nil || done.Level != level.Live ||
		!slices.Equal(done.Loaded, []string{"fix_1"}) || done.Switching ||
		states(done.LivePatches) != "fix_1 effective" {
		t.Errorf("%+v, %v", done, err)
	}
	done = Applied{}
	if err := s.applyLive(ctx, p, &done, ""); err != nil || done.Level != "" || done.Loaded != nil {
		t.Errorf("a second time: %+v, %v", done, err)
	}
	v, err := h.available(ctx, p, h.facts, rec)
	if err != nil || v.Live {
		t.Errorf("it is effective and still offered: %+v, %v", v, err)
	}
}

// TestRevertIsRemembered: a reverted live patch is not loaded again until it is asked for by name.
func TestRevertIsRemembered(t *testing.T) {
	h := newPatchHost(t)
	h.publish(1, listing{name: "fix_1"}, listing{name: "fix_2"})
	_, err := h.apply(LivePatchOptions{})
	h.check(err)
	r, err := h.revert("fix_2")
	if err != nil || !slices.Equal(r.Reverted, []string{"fix_2"}) ||
		states(r.Patches) != "fix_1 not loaded, fix_2 held" ||
		r.Patches[1].Reason != "reverted by the operator" {
		t.Errorf("%v %s, %v", r.Reverted, states(r.Patches), err)
	}
	h.boot()
	if _, err := h.apply(LivePatchOptions{}); err != nil || !slices.Equal(h.loads, []string{"fix_1"}) {
		t.Errorf("loaded %v, %v", h.loads, err)
	}
	r, err = h.apply(LivePatchOptions{Name: "fix_2", Stored: true})
	if err != nil || states(r.Patches) != "fix_1 superseded, fix_2 effective" {
		t.Errorf("by name: %s, %v", states(r.Patches), err)
	}
	h.boot()
	if _, err := h.apply(LivePatchOptions{Stored: true}); err != nil || !slices.Equal(h.loads, []string{"fix_2"}) {
		t.Errorf("it is held no more, and loaded were %v, %v", h.loads, err)
	}
	if r, err = h.revert(""); err != nil || !slices.Equal(r.Reverted, []string{"fix_2"}) {
		t.Errorf("all: %v, %v", r.Reverted, err)
	}
	if _, err := h.revert("none"); !errors.Is(err, live.ErrNoLivePatch) {
		t.Errorf("%v", err)
	}
}

// TestStalled: a transition that stalls is reversed, and the error is an ErrSoftRebootHelps only when a soft reboot
// would complete it.
func TestStalled(t *testing.T) {
	for name, c := range map[string]struct {
		pid   int
		stat  string
		helps bool
	}{
		"by a service":              {70, "70 (pump) S 1 1 1 0 -1 4194560 0", true},
		"by a thread of the kernel": {71, "71 (kworker) S 2 0 0 0 -1 2129984 0", false},
		"by PID 1":                  {1, "1 (systemd) S 0 1 1 0 -1 4194560 0", false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newPatchHost(t)
			h.publish(1, listing{name: "fix_1"})
			h.stall = true
			dir := fmt.Sprintf("/proc/%d/", c.pid)
			h.file(dir+"stat", c.stat)
			h.file(fmt.Sprintf("%stask/%d/patch_state", dir, c.pid), "0")
			h.file(fmt.Sprintf("%stask/%d/comm", dir, c.pid), "pump")
			r, err := h.apply(LivePatchOptions{})
			if !errors.Is(err, livepatch.ErrStalled) || errors.Is(err, live.ErrSoftRebootHelps) != c.helps ||
				!strings.Contains(err.Error(), "pump (process") {
				t.Errorf("%v", err)
			}
			if states(r.Patches) != "fix_1 not loaded" {
				t.Errorf("%s", states(r.Patches))
			}
			events, err := h.Records.History()
			if err != nil || events[len(events)-1].Event != "live patch failed" {
				t.Errorf("%+v, %v", events, err)
			}
			// After the switch it completes.
			h.stall = false
			rec, err := h.Records.Read()
			h.check(err)
			if done, err := h.Live.LoadWaiting(context.Background(), h.facts, rec); err != nil ||
				!slices.Equal(done, []string{"fix_1"}) {
				t.Errorf("%v, %v", done, err)
			}
		})
	}
}

// TestRestartIsJudged: a restart of the same root is judged like a switch: when it would hang, or the kernel is too
// old, it is neither offered nor requested.
func TestRestartIsJudged(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*facts.Facts)
		want   error
		reason string
	}{
		"a disk that it detaches": {
			change: func(f *facts.Facts) { f.DiskUnits = []string{"systemd-cryptsetup@data.service"} },
			want:   roots.ErrIncompatible,
			reason: "x-initrd.attach",
		},
		"a kernel that is too old": {
			change: func(f *facts.Facts) {
				f.KernelBooted = time.Now().AddDate(0, 0, -9)
				f.RebootBy, f.At = f.KernelBooted, time.Now()
			},
			want:   roots.ErrFullReboot,
			reason: "max-kernel-age",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newPatchHost(t)
			h.publish(1, listing{name: "fix_1"})
			h.stall = true
			h.file("/proc/70/stat", "70 (pump) S 1 1 1 0 -1 4194560 0")
			h.file("/proc/70/task/70/patch_state", "0")
			h.file("/proc/70/task/70/comm", "pump")
			c.change(&h.facts)
			if _, err := h.apply(LivePatchOptions{}); !errors.Is(err, livepatch.ErrStalled) ||
				errors.Is(err, live.ErrSoftRebootHelps) || errors.Is(err, c.want) {
				t.Errorf("it is offered: %v", err)
			}
			ctx := context.Background()
			rec, err := h.Records.Read()
			h.check(err)
			p, err := h.fetchVerified(ctx, "", h.facts, rec, false)
			h.check(err)
			s, done := &session{Agent: h.Agent, facts: h.facts, rec: rec}, Applied{}
			if err := s.applyLive(ctx, p, &done, level.Soft); !errors.Is(err, c.want) ||
				!strings.Contains(err.Error(), c.reason) || done.Restarting || done.Level != "" {
				t.Errorf("apply --level soft: %+v, %v", done, err)
			}
		})
	}
}

// TestRefusals: when the kernel refuses one live patch, another one is loaded; when it supports none, none is tried.
func TestRefusals(t *testing.T) {
	h := newPatchHost(t)
	h.publish(1, listing{name: "fix_1"}, listing{name: "fix_2"})
	h.refuse["fix_2"] = unix.EINVAL
	r, err := h.apply(LivePatchOptions{})
	if !errors.Is(err, livepatch.ErrKernel) || !slices.Equal(r.Loaded, []string{"fix_1"}) ||
		states(r.Patches) != "fix_1 effective, fix_2 not loaded" {
		t.Errorf("%+v, %v", r, err)
	}
	h.boot()
	h.check(os.RemoveAll(h.Path("/sys/kernel/livepatch")))
	if _, err := h.apply(LivePatchOptions{Stored: true}); !errors.Is(err, livepatch.ErrUnsupported) || len(h.loads) != 0 {
		t.Errorf("%v, %v", h.loads, err)
	}
}

// TestNamedLivePatch: a live patch is loaded by name even when it is superseded, but never into another kernel.
func TestNamedLivePatch(t *testing.T) {
	h := newPatchHost(t)
	h.publish(1, listing{name: "fix_1", fixes: "CVE-2026-0001"}, listing{name: "fix_2", fixes: "CVE-2026-0001"},
		listing{name: "other", buildID: "0123456789abcdef"})
	if _, err := h.apply(LivePatchOptions{Name: "none"}); !errors.Is(err, live.ErrNoLivePatch) {
		t.Errorf("%v", err)
	}
	if _, err := h.apply(LivePatchOptions{Name: "other"}); !errors.Is(err, roots.ErrIncompatible) ||
		!strings.Contains(err.Error(), "other: it is for the kernel with the build id 0123456789abcdef") {
		t.Errorf("%v", err)
	}
	if r, err := h.apply(LivePatchOptions{Name: "fix_1"}); err != nil || !slices.Equal(r.Loaded, []string{"fix_1"}) {
		t.Errorf("a superseded one by name: %+v, %v", r, err)
	}
	h.facts.KernelVersion = "#2 SMP"
	_, err := h.apply(LivePatchOptions{Name: "fix_1", Stored: true})
	if !errors.Is(err, roots.ErrIncompatible) || !strings.Contains(err.Error(), `for the build "#1 SMP"`) {
		t.Errorf("%v", err)
	}
	if r, err := h.apply(LivePatchOptions{Stored: true}); err != nil || len(r.Loaded) != 0 ||
		!strings.HasPrefix(states(r.Patches), "fix_1 for another kernel") {
		t.Errorf("%s, %v", states(r.Patches), err)
	}
}

// TestStoredIsVerifiedAgain: at boot, stored live patches are verified again, by today's policy.
func TestStoredIsVerifiedAgain(t *testing.T) {
	h := newPatchHost(t)
	h.publish(1, listing{name: "fix_1"})
	_, err := h.apply(LivePatchOptions{})
	h.check(err)
	h.boot()
	h.newKey()
	r, err := h.apply(LivePatchOptions{Stored: true})
	if !errors.Is(err, verify.ErrWrongKey) || len(h.loads) != 0 || len(r.Patches[0].Vouchers) != 0 {
		t.Errorf("%v, loaded %v", err, h.loads)
	}
}

// TestFatalLivePatchIsHeld: a live patch that crashed the host is not loaded at any later boot.
func TestFatalLivePatchIsHeld(t *testing.T) {
	h := newPatchHost(t)
	h.publish(1, listing{name: "fix_1"}, listing{name: "fix_2"})
	rec, err := h.Records.Read()
	h.check(err)
	rec.Loading = &record.Loading{Name: "fix_2", BootID: "an earlier boot"}
	h.check(h.Records.Write(rec))
	r, err := h.apply(LivePatchOptions{})
	if err != nil || !slices.Equal(h.loads, []string{"fix_1"}) ||
		!strings.Contains(r.Patches[1].Reason, "the host went down") {
		t.Errorf("loaded %v, %s, %v", h.loads, states(r.Patches), err)
	}
	// When only the agent was killed, the live patch is not held.
	rec.Loading, rec.Held = &record.Loading{Name: "fix_2", BootID: h.facts.BootID}, nil
	h.check(h.Live.HoldFatal(h.facts, rec))
	if rec.Held["fix_2"] != (record.Held{}) || rec.Loading != nil {
		t.Errorf("%+v", rec)
	}
}

// TestLivePatchEvents: what becomes of a live patch is logged when it happens, once.
func TestLivePatchEvents(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*patchHost, *record.Record)
		want    []string
	}{
		"effective": {func(*patchHost, *record.Record) {}, []string{"live-patch-effective fix_1"}},
		"refused by the kernel": {func(h *patchHost, _ *record.Record) { h.refuse["fix_1"] = unix.EINVAL },
			[]string{"live-patch-failed fix_1"}},
		"the host went down with it": {func(_ *patchHost, r *record.Record) {
			r.Loading = &record.Loading{Name: "fix_1", BootID: "an earlier boot"}
		}, []string{"live-patch-held fix_1"}},
		"the agent was killed": {func(h *patchHost, r *record.Record) {
			r.Loading = &record.Loading{Name: "fix_1", BootID: h.facts.BootID}
		}, []string{"live-patch-effective fix_1"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newPatchHost(t)
			log, events := eventtest.Log(t)
			next := On(h.Machine, h.Config, log)
			next.Live.Kernel = h.Live.Kernel
			h.Agent = next
			h.publish(1, listing{name: "fix_1"})
			rec, err := h.Records.Read()
			h.check(err)
			c.prepare(h, rec)
			h.check(h.Records.Write(rec))
			_, _ = h.apply(LivePatchOptions{})
			if got := events(); !slices.Equal(got, c.want) {
				t.Errorf("the events are %q, want %q", got, c.want)
			}
			if c.want[0] == "live-patch-failed fix_1" { // it is tried again, and fails again
				return
			}
			if _, err := h.apply(LivePatchOptions{}); err != nil || len(events()) > 0 {
				t.Errorf("the next time, it is logged again; %v", err)
			}
		})
	}
}

// TestReplaced: a cumulative live patch replaces the others: the kernel disables them, and the agent removes their
// modules if it loaded them.
func TestReplaced(t *testing.T) {
	h := newPatchHost(t)
	h.publish(1, listing{name: "fix_1", fixes: "CVE-2026-0001"})
	_, err := h.apply(LivePatchOptions{})
	h.check(err)
	h.file("/sys/module/theirs/refcnt", "0")
	h.publish(2, listing{name: "fix_2", fixes: "CVE-2026-0001,CVE-2026-0002"})
	r, err := h.apply(LivePatchOptions{})
	if err != nil || states(r.Patches) != "fix_1 no longer published, fix_2 effective" {
		t.Errorf("%s, %v", states(r.Patches), err)
	}
	if rootfs.Exists(h.Path("/sys/module/fix_1")) || !rootfs.Exists(h.Path("/sys/module/theirs")) {
		t.Error("fix_1 is still in memory, or theirs is gone")
	}
	// A live patch that is no longer published is neither loaded at boot nor kept.
	h.boot()
	if _, err := h.apply(LivePatchOptions{Stored: true}); err != nil || !slices.Equal(h.loads, []string{"fix_2"}) {
		t.Errorf("loaded %v, %v", h.loads, err)
	}
	if removed, err := h.Live.GC(h.facts, nil); err != nil || !slices.Equal(removed, []string{"fix_1"}) {
		t.Errorf("%v, %v", removed, err)
	}
}

// TestAnotherBuildOfThatName: a module whose name is in the kernel already cannot be loaded, and the error says what
// to do.
func TestAnotherBuildOfThatName(t *testing.T) {
	h := newPatchHost(t)
	h.publish(41, listing{name: "livepatch", fixes: "CVE-2026-0001", note: "41"})
	_, err := h.apply(LivePatchOptions{})
	h.check(err)
	h.publish(42, listing{name: "livepatch", fixes: "CVE-2026-0001,CVE-2026-0002", note: "42"})
	rec, err := h.Records.Read()
	h.check(err)
	p, err := h.fetchVerified(context.Background(), "", h.facts, rec, false)
	h.check(err)
	if v, err := h.available(context.Background(), p, h.facts, rec); err != nil || !v.Live ||
		states(v.LivePatches) != "livepatch another build of it is loaded" {
		t.Errorf("offered: %+v, %v", v, err)
	}
	r, err := h.apply(LivePatchOptions{})
	if !errors.Is(err, livepatch.ErrTaken) ||
		states(r.Patches) != "livepatch effective, livepatch another build of it is loaded" ||
		!strings.Contains(r.Patches[1].Reason, "revert livepatch` takes that out") {
		t.Fatalf("%s, %v", states(r.Patches), err)
	}
	for cve, want := range map[string]live.FixState{
		"CVE-2026-0001": live.FixedByLivePatch,
		"CVE-2026-0002": live.FixOpen,
	} {
		if fix := live.Cover(h.facts, cve, false, r.Patches); fix.State != want {
			t.Errorf("%+v", fix)
		}
	}
	// As the error says: revert that one; then the new one is loaded, not the old one of the same name.
	if r, err := h.revert("livepatch"); err != nil || !slices.Equal(r.Reverted, []string{"livepatch"}) {
		t.Errorf("%v, %v", r.Reverted, err)
	}
	if r, err = h.apply(LivePatchOptions{Name: "livepatch"}); err != nil ||
		states(r.Patches) != "livepatch no longer published, livepatch effective" ||
		!slices.Equal(r.Loaded, []string{"livepatch"}) {
		t.Errorf("%s, %v", states(r.Patches), err)
	}
	// A live patch of that name that somebody else loaded is not ours.
	h.boot()
	h.file("/sys/module/livepatch/notes/.note.gnu.build-id", "theirs")
	h.file("/sys/kernel/livepatch/livepatch/transition", "0")
	h.file("/sys/kernel/livepatch/livepatch/enabled", "1")
	r, err = h.apply(LivePatchOptions{Stored: true})
	want := "livepatch no longer published, livepatch another build of it is loaded, livepatch effective"
	if !errors.Is(err, livepatch.ErrTaken) || states(r.Patches) != want ||
		r.Patches[2].Reason != "loaded by somebody else" {
		t.Errorf("%s, %v", states(r.Patches), err)
	}
}

// TestLastListedIsLoaded: the last live patch listed for the running kernel is loaded; the earlier ones are
// superseded, whatever they fix.
func TestLastListedIsLoaded(t *testing.T) {
	h := newPatchHost(t)
	p1, p2 := listing{name: "p1", fixes: "CVE-2026-0001"}, listing{name: "p2"}
	p3 := listing{name: "p3", fixes: "CVE-2026-0003"}
	for n, c := range []struct {
		listed []listing
		loads  string
		want   string
	}{
		{[]listing{p1, p2}, "p2", "p1 superseded, p2 effective"},
		{[]listing{p1, p2}, "", "p1 superseded, p2 effective"},
		{[]listing{p1, p3, p2}, "", "p1 superseded, p3 superseded, p2 effective"},
		{[]listing{p1, p2, p3}, "p3", "p1 superseded, p2 superseded, p3 effective"},
		{[]listing{p1, p2}, "p2", "p3 no longer published, p1 superseded, p2 effective"}, // withdrawn by its publisher
	} {
		h.loads = nil
		h.publish(int64(n+1), c.listed...)
		r, err := h.apply(LivePatchOptions{})
		if got := strings.Join(h.loads, " "); err != nil || got != c.loads || states(r.Patches) != c.want {
			t.Errorf("release %d: loaded %q: %s, %v; want %q: %s", n+1, got, states(r.Patches), err, c.loads, c.want)
		}
		rec, err := h.Records.Read()
		h.check(err)
		p, err := h.fetchVerified(context.Background(), "", h.facts, rec, false)
		h.check(err)
		if v, err := h.available(context.Background(), p, h.facts, rec); err != nil || v.Live {
			t.Errorf("release %d is offered again: %+v, %v", n+1, v, err)
		}
	}
	_, err := h.apply(LivePatchOptions{Name: "p1", Stored: true})
	if !errors.Is(err, record.ErrBlocked) || !strings.Contains(err.Error(), "`updatectl livepatch revert p2` first") {
		t.Errorf("p1 below what supersedes it: %v", err)
	}
}

// TestStackedIsRefused: a live patch that is not cumulative does not stay on top of another one of ours: it is removed
// again, and the error says what to do. This works before Linux 6.11, too.
func TestStackedIsRefused(t *testing.T) {
	for _, silent := range []bool{false, true} {
		h := newPatchHost(t)
		h.silent = silent
		h.stacks["p1"], h.stacks["p2"] = true, true
		h.publish(1, listing{name: "p1"})
		if r, err := h.apply(LivePatchOptions{}); err != nil || states(r.Patches) != "p1 effective" {
			t.Errorf("alone: %s, %v", states(r.Patches), err)
		}
		h.publish(2, listing{name: "p2"})
		for _, name := range []string{"", "p2"} {
			r, err := h.apply(LivePatchOptions{Name: name})
			if !errors.Is(err, record.ErrBlocked) || !strings.Contains(err.Error(), "p2 is not cumulative") ||
				!strings.Contains(err.Error(), "`updatectl livepatch revert p1` first") ||
				states(r.Patches) != "p1 effective, p2 not loaded" {
				t.Errorf("apply %s: %s, %v", name, states(r.Patches), err)
			}
			if len(r.Loaded) > 0 || rootfs.Exists(h.Path("/sys/module/p2")) {
				t.Errorf("apply %s: it is still in the kernel, or said to be: %v", name, r.Loaded)
			}
		}
		var recorded []string
		events, err := h.Records.History()
		h.check(err)
		for _, e := range events {
			recorded = append(recorded, e.Event+" "+e.LivePatch)
		}
		want := []string{"live patch effective p1", "live patch failed p2", "live patch failed p2"}
		if !slices.Equal(recorded, want) {
			t.Errorf("history %q", recorded)
		}
		// As the error says.
		_, err = h.revert("p1")
		h.check(err)
		if r, err := h.apply(LivePatchOptions{}); err != nil || states(r.Patches) != "p1 held, p2 effective" {
			t.Errorf("after revert: %s, %v", states(r.Patches), err)
		}
	}
}

// TestStackedBeforeStays: live patches that an earlier updatectl stacked stay as they are, even when asked for by
// name.
func TestStackedBeforeStays(t *testing.T) {
	h := newPatchHost(t)
	h.stacks["p1"], h.stacks["p2"] = true, true
	h.publish(1, listing{name: "p1"}, listing{name: "p2"})
	_, err := h.apply(LivePatchOptions{})
	h.check(err)
	h.file("/sys/module/p1/refcnt", "1")
	h.file("/sys/kernel/livepatch/p1/transition", "0")
	h.file("/sys/kernel/livepatch/p1/enabled", "1")
	for _, name := range []string{"", "p1", "p2"} {
		if r, err := h.apply(LivePatchOptions{Name: name, Stored: true}); err != nil ||
			states(r.Patches) != "p1 effective, p2 effective" {
			t.Errorf("apply %s: %s, %v", name, states(r.Patches), err)
		}
	}
	if r, err := h.revert(""); err != nil || !slices.Equal(r.Reverted, []string{"p2", "p1"}) {
		t.Errorf("%v, %v", r.Reverted, err)
	}
}

// TestKernelsOfTheHost: a full reboot may start another kernel of the host before there is a network, so live patches
// for it are stored beforehand. They are never loaded into any other kernel.
func TestKernelsOfTheHost(t *testing.T) {
	h := newPatchHost(t)
	h.publish(1,
		listing{name: "now"}, listing{name: "own", release: "6.12.49"}, listing{name: "hosts", release: "6.12.50"},
		listing{name: "rebuilt", version: "#2 SMP"}, listing{name: "nobodys", release: "6.12.51"})
	for _, dir := range []string{
		"/usr/lib/modules/6.12.48", "/usr/lib/modules/6.12.49", "/.updatectl/host/usr/lib/modules/6.12.50",
	} {
		h.file(dir+"/modules.dep", "")
	}
	want := "now effective, own for another kernel, hosts for another kernel, rebuilt for another kernel"
	if r, err := h.apply(LivePatchOptions{}); err != nil || !slices.Equal(h.loads, []string{"now"}) ||
		states(r.Patches) != want {
		t.Errorf("loaded %v: %s, %v", h.loads, states(r.Patches), err)
	}
	if removed, err := h.Live.GC(h.facts, nil); err != nil || len(removed) != 0 {
		t.Errorf("collected %v, %v", removed, err)
	}
	h.check(os.RemoveAll(h.layout))
	h.boot()
	h.facts.KernelRelease = "6.12.50"
	if _, err := h.apply(LivePatchOptions{Stored: true, Unattended: true}); err != nil ||
		!slices.Equal(h.loads, []string{"hosts"}) {
		t.Errorf("in the newer kernel: %v, %v", h.loads, err)
	}
	// The next release no longer lists it.
	h.publish(2, listing{name: "own", release: "6.12.49"})
	_, err := h.apply(LivePatchOptions{})
	h.check(err)
	if removed, err := h.Live.GC(h.facts, nil); err != nil || !slices.Equal(removed, []string{"now", "rebuilt"}) {
		t.Errorf("collected %v, %v", removed, err)
	}
}

// TestStandIn: when the last live patch does not load, the one listed before it is loaded instead.
func TestStandIn(t *testing.T) {
	for name, fail := range map[string]func(h *patchHost){
		"stalls":  func(h *patchHost) { h.stalls["p2"] = true },
		"refused": func(h *patchHost) { h.refuse["p2"] = unix.EINVAL },
	} {
		t.Run(name, func(t *testing.T) {
			h := newPatchHost(t)
			h.publish(1, listing{name: "p1", fixes: "CVE-2026-0001"}, listing{name: "p2", fixes: "CVE-2026-0001,CVE-2026-0002"})
			fail(h)
			r, err := h.apply(LivePatchOptions{})
			if err == nil || !slices.Equal(h.loads, []string{"p2", "p1"}) ||
				!slices.Equal(r.Loaded, []string{"p1"}) || states(r.Patches) != "p1 effective, p2 not loaded" {
				t.Errorf("loaded %v: %s, %v", h.loads, states(r.Patches), err)
			}
			h.stalls["p2"], h.refuse["p2"] = false, nil
			if r, err := h.apply(LivePatchOptions{Stored: true}); err != nil ||
				states(r.Patches) != "p1 superseded, p2 effective" {
				t.Errorf("later: %s, %v", states(r.Patches), err)
			}
		})
	}
}

// TestAtBoot: at boot, and after every switch, all of userspace waits for the live patches: one that stalled before is
// left for later, and all of them share one deadline.
func TestAtBoot(t *testing.T) {
	h := newPatchHost(t)
	h.publish(1, listing{name: "p1", fixes: "CVE-2026-0001"}, listing{name: "p2", fixes: "CVE-2026-0001,CVE-2026-0002"})
	atBoot := LivePatchOptions{Stored: true, Unattended: true}
	h.stalls["p2"] = true
	if r, err := h.apply(LivePatchOptions{}); !errors.Is(err, livepatch.ErrStalled) ||
		!slices.Equal(r.Loaded, []string{"p1"}) {
		t.Errorf("%v, %v", r.Loaded, err)
	}
	h.check(func() error { _, err := h.revert("p1"); return err }())
	rec, err := h.Records.Read()
	h.check(err)
	rec.Held, h.loads = nil, nil
	h.check(h.Records.Write(rec))
	if r, err := h.apply(atBoot); err != nil || !slices.Equal(h.loads, []string{"p1"}) {
		t.Errorf("after a soft reboot: %v, %s, %v", h.loads, states(r.Patches), err)
	}
	h.stalls["p2"], h.loads = false, nil
	if done, err := h.Live.LoadWaiting(context.Background(), h.facts, rec); err != nil ||
		!slices.Equal(done, []string{"p2"}) {
		t.Errorf("when the root is good: %v, %v", done, err)
	}
	if left := h.Live.ReadNotes(h.facts).Stalled; len(left) != 0 {
		t.Errorf("it went through, and noted is %v", left)
	}

	// A full reboot starts over, and the first live patch uses up the deadline that all share.
	h.publish(2, listing{name: "p1", fixes: "CVE-2026-0001"}, listing{name: "p2", fixes: "CVE-2026-0001,CVE-2026-0002"})
	_, err = h.apply(LivePatchOptions{})
	h.check(err)
	h.boot()
	h.stall = true
	for _, want := range []string{"p2", "p1", ""} {
		h.loads = nil
		_, err := h.apply(atBoot)
		if got := strings.Join(h.loads, " "); got != want || errors.Is(err, livepatch.ErrStalled) != (want != "") {
			t.Errorf("after a boot: loaded %q, want %q; %v", got, want, err)
		}
	}
}

// TestLivePatchesAreOff: with [livepatch] enabled = false, live patches are loaded by hand only.
func TestLivePatchesAreOff(t *testing.T) {
	h := newPatchHost(t)
	h.publish(1, listing{name: "fix_1"})
	h.Config.LivePatch.Enabled = false
	if r, err := h.apply(LivePatchOptions{Unattended: true}); err != nil || len(r.Loaded) != 0 ||
		rootfs.Exists(patches.Dir(h.Path(record.StateDir))) {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := h.apply(LivePatchOptions{}); err != nil || !slices.Equal(r.Loaded, []string{"fix_1"}) {
		t.Errorf("by hand: %+v, %v", r, err)
	}
}

// TestOlderLivePatchesAreRefused: releases are accepted in their order, also those of live patches alone.
func TestOlderLivePatchesAreRefused(t *testing.T) {
	h := newPatchHost(t)
	h.publish(2, listing{name: "fix_2"})
	_, err := h.apply(LivePatchOptions{})
	h.check(err)
	h.publish(1, listing{name: "fix_1"})
	if _, err := h.apply(LivePatchOptions{}); !errors.Is(err, release.ErrReplayed) ||
		!slices.Equal(h.loads, []string{"fix_2"}) {
		t.Errorf("%v, loaded %v", err, h.loads)
	}
}
