package live

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/livepatch"
)

// named returns a live patch for the kernel of these tests.
func named(name string) release.LivePatch {
	f := hosttest.Kernel
	return release.LivePatch{
		Name: name, KernelRelease: f.KernelRelease, KernelVersion: f.KernelVersion, KernelBuildID: f.KernelBuildID,
	}
}

func TestMisfit(t *testing.T) {
	fits := named("fits")
	for name, c := range map[string]struct {
		change func(*facts.Facts)
		want   string
	}{
		"fits": {func(*facts.Facts) {}, ""},
		"another kernel": {func(f *facts.Facts) { f.KernelRelease = "6.12.49" },
			"it is for the kernel 6.12.48, and this host runs 6.12.49"},
		"another build": {func(f *facts.Facts) { f.KernelVersion = "#2 SMP" }, `this host runs "#2 SMP"`},
		"another build id": {func(f *facts.Facts) { f.KernelBuildID = "00" },
			"with the build id c0ffee0123456789, and this host runs 00"},
		"no build id": {func(f *facts.Facts) { f.KernelBuildID = "" }, "has no build id"},
	} {
		f := hosttest.Kernel
		c.change(&f)
		got := misfit(f, fits)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if picked := len(forThisKernel(f, []release.LivePatch{fits})) == 1; picked != (c.want == "") {
			t.Errorf("%s: picked %v", name, picked)
		}
	}
}

func TestSurvey(t *testing.T) {
	k := func(name, fixes string) knownLivePatch {
		l := named(name)
		if fixes != "" {
			l.Fixes = strings.Split(fixes, ",")
		}
		return knownLivePatch{LivePatch: l, stored: true}
	}
	withdrawn := k("w", "A")
	withdrawn.withdrawn = true
	tried := k("t", "A")
	tried.tried = true
	noted := k("b", "B")
	noted.note = []byte("b")
	other := k("o", "A,B")
	other.KernelBuildID = "00"
	held := map[string]record.Held{"h": {Reason: "reverted by the operator"}}
	for name, c := range map[string]struct {
		loaded []livepatch.Patch
		all    []knownLivePatch
		want   string
	}{
		"nothing": {},
		"waits":   {all: []knownLivePatch{k("a", "A")}, want: "a not loaded"},
		"superseded": {
			all:  []knownLivePatch{k("a", "A"), k("b", "A,B")},
			want: "a superseded, b not loaded",
		},
		"superseded, other fixes": {
			all:  []knownLivePatch{k("a", "A,C"), k("b", "A,B")},
			want: "a superseded, b not loaded",
		},
		"superseded, no fix named": {
			all:  []knownLivePatch{k("a", ""), k("b", ""), k("c", "")},
			want: "a superseded, b superseded, c not loaded",
		},
		"later one was tried": {all: []knownLivePatch{k("a", "A"), tried}, want: "a not loaded, t not loaded"},
		"later one was tried and is on": {
			loaded: []livepatch.Patch{{Name: "t", Enabled: true}},
			all:    []knownLivePatch{k("a", "A"), tried},
			want:   "a superseded, t effective",
		},
		"later one is held and on": {
			loaded: []livepatch.Patch{{Name: "h", Enabled: true}},
			all:    []knownLivePatch{k("a", "A"), k("h", "A")},
			want:   "a superseded, h effective",
		},
		"switched off by a later one": {
			loaded: []livepatch.Patch{{Name: "a"}, {Name: "b", Enabled: true}},
			all:    []knownLivePatch{k("a", "A"), k("b", "A")},
			want:   "a superseded, b effective",
		},
		"withdrawn and switched off": {
			loaded: []livepatch.Patch{{Name: "w"}},
			all:    []knownLivePatch{withdrawn},
			want:   "w no longer published",
		},
		"later one is held": {all: []knownLivePatch{k("a", "A"), k("h", "A,B")}, want: "a not loaded, h held"},
		"later one for another kernel": {
			all:  []knownLivePatch{k("a", "A"), other},
			want: "a not loaded, o for another kernel",
		},
		"later one withdrawn": {
			all:  []knownLivePatch{k("a", "A"), withdrawn},
			want: "a not loaded, w no longer published",
		},
		"effective": {
			loaded: []livepatch.Patch{{Name: "a", Enabled: true}},
			all:    []knownLivePatch{k("a", "A"), k("b", "A")},
			want:   "a effective, b not loaded",
		},
		"in transition": {
			loaded: []livepatch.Patch{{Name: "a", Enabled: true, Transition: true}},
			all:    []knownLivePatch{k("a", "A")},
			want:   "a in transition",
		},
		"leaving": {
			loaded: []livepatch.Patch{{Name: "h", Transition: true}},
			all:    []knownLivePatch{k("h", "A")},
			want:   "h being taken back",
		},
		"switched off": {
			loaded: []livepatch.Patch{{Name: "a"}},
			all:    []knownLivePatch{k("a", "A")},
			want:   "a switched off",
		},
		"somebody else's": {
			loaded: []livepatch.Patch{{Name: "x", Enabled: true}},
			all:    []knownLivePatch{k("a", "A")},
			want:   "a not loaded, x effective",
		},
		"superseded in the kernel": {
			loaded: []livepatch.Patch{{Name: "b", Enabled: true, Replace: true}},
			all:    []knownLivePatch{k("a", "A"), k("b", "B")},
			want:   "a superseded, b effective",
		},
		"unlike any, listed later": {
			loaded: []livepatch.Patch{{Name: "b", Enabled: true, Note: "x"}},
			all:    []knownLivePatch{k("a", "A"), noted},
			want:   "a superseded, b another build of it is loaded, b effective",
		},
		"another build": {
			loaded: []livepatch.Patch{{Name: "b", Enabled: true, Note: "x"}},
			all:    []knownLivePatch{noted},
			want:   "b another build of it is loaded, b effective",
		},
		"the same build": {
			loaded: []livepatch.Patch{{Name: "b", Enabled: true, Note: "b"}},
			all:    []knownLivePatch{noted},
			want:   "b effective",
		},
		"same name, another kernel's": {
			loaded: []livepatch.Patch{{Name: "o", Enabled: true}},
			all:    []knownLivePatch{other},
			want:   "o for another kernel, o effective",
		},
	} {
		if got := states(SurveyOf(hosttest.Kernel, c.loaded, c.all, held)); got != c.want {
			t.Errorf("%s: %s; want %s", name, got, c.want)
		}
	}
}

// states writes a survey as text.
func states(list []LivePatch) string {
	var text []string
	for _, p := range list {
		text = append(text, p.Name+" "+string(p.State))
	}
	return strings.Join(text, ", ")
}
