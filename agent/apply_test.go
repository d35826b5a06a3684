package agent

import (
	"cmp"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

// TestDecideApply has every case of decideApply, its limits, and the hosts to which two cases apply. On every host of
// the table v1 is the last good root, except on a fresh one.
func TestDecideApply(t *testing.T) {
	const host, old, next, limit = switcher.HostRoot, "v1", "v2", record.MaxAttempts
	const (
		stays       = "the kernel command line has updatectl.resume=0"
		unavailable = "nothing newer is available: "
		landed      = "a full reboot landed on the host root"
		rests       = "the running root was marked bad at "
		published   = "the published image was marked bad at "
		gaveUp      = "marked bad at "
		attempts    = " attempts to resume it "
		switches    = " switches to it failed, the last one because no space;"
	)
	night, retry := ApplyOptions{Unattended: true}, ApplyOptions{Retry: true}
	nightRetry := ApplyOptions{Unattended: true, Retry: true}
	unreachable := offering{err: failure.ErrSource}
	newImage, sameImage := offering{root: next, image: true}, offering{root: old, image: true}
	patchesAlone := offering{root: old} // without an image, the root to run is the last good one
	for name, c := range map[string]struct {
		at      string // the running root
		fresh   bool   // no image has run here
		resumes int    // failed attempts to resume the last good root, or resumed when that is set
		resumed string
		bad     string // a root that was given up
		failed  int    // failed switches to the new root, or to failing when that is set
		failing string
		off     offering
		o       ApplyOptions
		stay    bool

		do  applyAct
		why string // is part of the reason; "" is no reason
		err error
	}{
		"must stay":                     {at: host, off: sameImage, o: night, stay: true, do: doStay, why: stays},
		"must stay, source unreachable": {at: host, off: unreachable, o: night, stay: true, do: doStay, why: stays},
		"must stay, live patches alone": {at: host, off: patchesAlone, o: night, stay: true, do: doStay, why: stays},
		"must stay, root runs already":  {at: old, off: sameImage, o: night, stay: true, do: doStay, why: stays},
		"must stay, image was given up": {
			at: host, off: newImage, bad: next, o: night, stay: true, do: doStay, why: stays,
		},
		"must stay, resumed too often": {
			at: host, off: sameImage, resumes: limit, o: night, stay: true, do: doStay, why: stays,
		},
		"must stay, switched too often": {
			at: host, off: newImage, failed: limit, o: night, stay: true, do: doStay, why: stays,
		},
		"must stay, there is a new image": {at: host, off: newImage, o: night, stay: true, do: doStay, why: stays},

		"unreachable, stranded": {at: host, off: unreachable, o: night, do: doResume, why: unavailable},
		"unreachable, resumed once": {
			at: host, off: unreachable, resumes: limit - 1, o: night, do: doResume, why: unavailable,
		},
		"unreachable, resumed another root": {
			at: host, off: unreachable, resumes: limit, resumed: "v0", o: night, do: doResume, why: unavailable,
		},
		"unreachable, resumed too often": {
			at: host, off: unreachable, resumes: limit, o: night, do: doRefuse, err: failure.ErrSource,
		},
		"unreachable, on host, attended": {at: host, off: unreachable, do: doRefuse, err: failure.ErrSource},
		"unreachable, on an image":       {at: old, off: unreachable, o: night, do: doRefuse, err: failure.ErrSource},
		"unreachable, fresh host": {
			at: host, fresh: true, off: unreachable, o: night, do: doRefuse, err: failure.ErrSource,
		},
		"unreachable, root of no name": {at: "", off: unreachable, do: doRefuse, err: failure.ErrSource},

		"runs already":                     {at: old, off: sameImage, do: doLiveOnly},
		"runs already, unattended":         {at: old, off: sameImage, o: night, do: doLiveOnly},
		"runs already, live patches alone": {at: old, off: patchesAlone, do: doLiveOnly},
		"runs already, fresh host":         {at: host, fresh: true, off: offering{root: host}, do: doLiveOnly},
		"runs already, was given up":       {at: old, off: sameImage, bad: old, do: doLiveOnly},
		"runs already, given up, nightly":  {at: old, off: sameImage, bad: old, o: night, do: doLiveOnly},
		"runs already, resumed too often":  {at: old, off: sameImage, resumes: limit, o: night, do: doLiveOnly},
		"runs already, switched too often": {at: next, off: newImage, failed: limit, o: night, do: doLiveOnly},

		"rests in a bad root":          {at: next, off: newImage, bad: next, o: night, do: doResume, why: rests},
		"rests in a bad root, by hand": {at: next, off: newImage, bad: next, do: doLiveOnly},
		"rests in a bad root, retry":   {at: next, off: newImage, bad: next, o: nightRetry, do: doLiveOnly},
		"rests in a bad root, unreachable": {
			at: next, off: unreachable, bad: next, o: night, do: doResume, why: unavailable,
		},
		"rests in a bad root, patches":      {at: next, off: patchesAlone, bad: next, o: night, do: doResume, why: rests},
		"rests in a bad root, good offered": {at: next, off: sameImage, bad: next, o: night, do: doSwitch},
		"rests in a bad root, resumed too often": {
			at: next, off: newImage, bad: next, resumes: limit, o: night, do: doLiveOnly,
		},

		"live patches alone":           {at: host, off: patchesAlone, do: doResume, why: landed},
		"live patches alone, nightly":  {at: host, off: patchesAlone, o: night, do: doResume, why: landed},
		"live patches alone, given up": {at: host, off: patchesAlone, bad: old, do: doResume, why: landed},
		"live patches alone, given up, nightly": {
			at: host, off: patchesAlone, bad: old, o: night, do: doResume, why: landed,
		},
		"live patches alone, resumed too often": {
			at: host, off: patchesAlone, resumes: limit, o: night, do: doSkip, why: " attempts to resume ",
		},
		"live patches alone, resumed once": {
			at: host, off: patchesAlone, resumes: limit - 1, o: night, do: doResume, why: landed,
		},
		"live patches alone, resumed too often, by hand": {
			at: host, off: patchesAlone, resumes: limit, do: doResume, why: landed,
		},

		"given up, stranded": {at: host, off: newImage, bad: next, o: night, do: doResume, why: published},
		"given up, stranded, resumed once": {
			at: host, off: newImage, bad: next, resumes: limit - 1, o: night, do: doResume, why: published,
		},
		"given up, resumed too often": {
			at: host, off: newImage, bad: next, resumes: limit, o: night, do: doSkip, why: gaveUp,
		},
		"given up, stranded, failed before": {
			at: host, off: newImage, bad: next, failed: limit, o: night, do: doResume, why: published,
		},
		"given up, stranded, retry": {at: host, off: newImage, bad: next, o: nightRetry, do: doSwitch},
		"given up, unattended":      {at: old, off: newImage, bad: next, o: night, do: doSkip, why: gaveUp},
		"given up, fresh host": {
			at: host, fresh: true, off: newImage, bad: next, o: night, do: doSkip, why: gaveUp,
		},
		"given up, switched too often": {
			at: old, off: newImage, bad: next, failed: limit, o: night, do: doSkip, why: gaveUp,
		},
		"given up, same as resumed": {
			at: host, off: sameImage, bad: old, resumes: limit, o: night, do: doSkip, why: gaveUp,
		},
		"given up, unattended retry":  {at: old, off: newImage, bad: next, o: nightRetry, do: doSwitch},
		"given up, attended":          {at: old, off: newImage, bad: next, do: doRefuse, err: record.ErrGivenUp},
		"given up, attended, on host": {at: host, off: newImage, bad: next, do: doRefuse, err: record.ErrGivenUp},
		"given up, attended, failed before": {
			at: old, off: newImage, bad: next, failed: limit, do: doRefuse, err: record.ErrGivenUp,
		},
		"given up, retry":            {at: old, off: newImage, bad: next, o: retry, do: doSwitch},
		"another image was given up": {at: old, off: newImage, bad: "v3", o: night, do: doSwitch},

		"not resumed yet":              {at: host, off: sameImage, o: night, do: doSwitch},
		"resumed once":                 {at: host, off: sameImage, resumes: limit - 1, o: night, do: doSwitch},
		"resumed too often":            {at: host, off: sameImage, resumes: limit, o: night, do: doSkip, why: attempts},
		"resumed far too often":        {at: host, off: sameImage, resumes: limit + 1, o: night, do: doSkip, why: attempts},
		"resumed too often, attended":  {at: host, off: sameImage, resumes: limit, do: doSwitch},
		"resumed too often, retry":     {at: host, off: sameImage, resumes: limit, o: nightRetry, do: doSkip, why: attempts},
		"resumed too often, new image": {at: host, off: newImage, resumes: limit, o: night, do: doSwitch},
		"resumed and switched too often": {
			at: host, off: sameImage, resumes: limit, failed: limit, failing: old, o: night, do: doSkip, why: attempts,
		},
		"another root was resumed": {at: host, off: sameImage, resumes: limit, resumed: "v0", o: night, do: doSwitch},

		"switched once":          {at: old, off: newImage, failed: limit - 1, o: night, do: doSwitch},
		"switched too often":     {at: old, off: newImage, failed: limit, o: night, do: doSkip, why: switches},
		"switched far too often": {at: old, off: newImage, failed: limit + 1, o: night, do: doSkip, why: switches},
		"switched too often, stranded": {
			at: host, off: newImage, failed: limit, o: night, do: doResume, why: " switches to the published image failed",
		},
		"switched too often, resumed too often": {
			at: host, off: newImage, failed: limit, resumes: limit, o: night, do: doSkip, why: switches,
		},
		"switched too often, by hand": {at: old, off: newImage, failed: limit, do: doSwitch},
		"another image failed": {
			at: old, off: offering{root: "v3", image: true}, failed: limit, o: night, do: doSwitch,
		},

		"a new image":             {at: old, off: newImage, do: doSwitch},
		"a new image, unattended": {at: old, off: newImage, o: night, do: doSwitch},
		"a new image, stranded":   {at: host, off: newImage, o: night, do: doSwitch},
		"a new image, fresh host": {at: host, fresh: true, off: newImage, o: night, do: doSwitch},
		"an image after a reboot": {at: host, off: sameImage, do: doSwitch},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &record.Record{
				Good: []string{host, old}, Bad: map[string]record.Bad{}, Failed: map[string]record.Failed{},
			}
			if c.fresh {
				rec.Good = []string{host}
			}
			if c.resumes > 0 {
				rec.Resume = &record.Resume{Root: old, Attempts: c.resumes}
			}
			if c.resumed != "" {
				rec.Resume.Root = c.resumed
			}
			if c.bad != "" {
				rec.Bad[c.bad] = record.Bad{Reason: "no network", At: time.Unix(1, 0)}
			}
			if c.failed > 0 {
				rec.Failed[cmp.Or(c.failing, next)] = record.Failed{Times: c.failed, Reason: "no space"}
			}
			d := decideApply(facts.Facts{Root: c.at}, rec, c.off, c.o, c.stay)
			if d.do != c.do || !errors.Is(d.err, c.err) {
				t.Errorf("decided %q, %v; want %q, %v", d.do, d.err, c.do, c.err)
			}
			if !strings.Contains(d.why, c.why) || (d.why == "") != (c.why == "") ||
				c.why == gaveUp && !strings.HasPrefix(d.why, gaveUp) {
				t.Errorf("the reason is %q, want %q", d.why, c.why)
			}
		})
	}
}
