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

func TestMisfit(t *testing.T) {
	fits := release.LivePatch{KernelRelease: hosttest.Kernel.KernelRelease, KernelVersion: hosttest.Kernel.KernelVersion, KernelBuildID: hosttest.Kernel.KernelBuildID}
	for name, c := range map[string]struct {
		change func(*facts.Facts)
		want   string
	}{
		"fits":             {func(*facts.Facts) {}, ""},
		"another kernel":   {func(f *facts.Facts) { f.KernelRelease = "6.12.49" }, "it is for the kernel 6.12.48, and this host runs 6.12.49"},
		"another build":    {func(f *facts.Facts) { f.KernelVersion = "#2 SMP" }, `this host runs "#2 SMP"`},
		"another build id": {func(f *facts.Facts) { f.KernelBuildID = "00" }, "with the build id c0ffee0123456789, and this host runs 00"},
		"no build id":      {func(f *facts.Facts) { f.KernelBuildID = "" }, "does not tell its build id"},
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
		l := release.LivePatch{Name: name, KernelRelease: hosttest.Kernel.KernelRelease, KernelVersion: hosttest.Kernel.KernelVersion, KernelBuildID: hosttest.Kernel.KernelBuildID}
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
	held := map[string]record.Held{"h": {Reason: "taken back by the operator"}}
	for name, c := range map[string]struct {
		loaded []livepatch.Patch
		all    []knownLivePatch
		want   string
	}{
		"nothing":                       {nil, nil, ""},
		"waits":                         {nil, []knownLivePatch{k("a", "A")}, "a not loaded"},
		"superseded":                    {nil, []knownLivePatch{k("a", "A"), k("b", "A,B")}, "a superseded, b not loaded"},
		"superseded, other fixes":       {nil, []knownLivePatch{k("a", "A,C"), k("b", "A,B")}, "a superseded, b not loaded"},
		"superseded, no fix named":      {nil, []knownLivePatch{k("a", ""), k("b", ""), k("c", "")}, "a superseded, b superseded, c not loaded"},
		"later one was tried":           {nil, []knownLivePatch{k("a", "A"), tried}, "a not loaded, t not loaded"},
		"later one was tried and is on": {[]livepatch.Patch{{Name: "t", Enabled: true}}, []knownLivePatch{k("a", "A"), tried}, "a superseded, t effective"},
		"later one is held and on":      {[]livepatch.Patch{{Name: "h", Enabled: true}}, []knownLivePatch{k("a", "A"), k("h", "A")}, "a superseded, h effective"},
		"switched off by a later one":   {[]livepatch.Patch{{Name: "a"}, {Name: "b", Enabled: true}}, []knownLivePatch{k("a", "A"), k("b", "A")}, "a superseded, b effective"},
		"withdrawn and switched off":    {[]livepatch.Patch{{Name: "w"}}, []knownLivePatch{withdrawn}, "w no longer published"},
		"later one is held":             {nil, []knownLivePatch{k("a", "A"), k("h", "A,B")}, "a not loaded, h held"},
		"later one for another kernel":  {nil, []knownLivePatch{k("a", "A"), other}, "a not loaded, o for another kernel"},
		"later one withdrawn":           {nil, []knownLivePatch{k("a", "A"), withdrawn}, "a not loaded, w no longer published"},
		"effective":                     {[]livepatch.Patch{{Name: "a", Enabled: true}}, []knownLivePatch{k("a", "A"), k("b", "A")}, "a effective, b not loaded"},
		"in transition":                 {[]livepatch.Patch{{Name: "a", Enabled: true, Transition: true}}, []knownLivePatch{k("a", "A")}, "a in transition"},
		"leaving":                       {[]livepatch.Patch{{Name: "h", Transition: true}}, []knownLivePatch{k("h", "A")}, "h being taken back"},
		"switched off":                  {[]livepatch.Patch{{Name: "a"}}, []knownLivePatch{k("a", "A")}, "a switched off"},
		"somebody else's":               {[]livepatch.Patch{{Name: "x", Enabled: true}}, []knownLivePatch{k("a", "A")}, "a not loaded, x effective"},
		"superseded in the kernel":      {[]livepatch.Patch{{Name: "b", Enabled: true, Replace: true}}, []knownLivePatch{k("a", "A"), k("b", "B")}, "a superseded, b effective"},
		"unlike any, listed later":      {[]livepatch.Patch{{Name: "b", Enabled: true, Note: "x"}}, []knownLivePatch{k("a", "A"), noted}, "a superseded, b another build of it is loaded, b effective"},
		"another build":                 {[]livepatch.Patch{{Name: "b", Enabled: true, Note: "x"}}, []knownLivePatch{noted}, "b another build of it is loaded, b effective"},
		"the same build":                {[]livepatch.Patch{{Name: "b", Enabled: true, Note: "b"}}, []knownLivePatch{noted}, "b effective"},
		"same name, another kernel's":   {[]livepatch.Patch{{Name: "o", Enabled: true}}, []knownLivePatch{other}, "o for another kernel, o effective"},
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
