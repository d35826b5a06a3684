package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher"
)

func TestChoose(t *testing.T) {
	decision := func(verdicts ...switcher.Verdict) switcher.Decision {
		d := switcher.Decision{Level: switcher.LevelSoft}
		for _, v := range verdicts {
			d.Checks = append(d.Checks, switcher.Check{Name: string(v), Verdict: v, Reason: "because of " + string(v)})
		}
		return d
	}
	soft := decision(switcher.VerdictOK, switcher.VerdictNote)
	full := decision(switcher.VerdictOK, switcher.VerdictFull, switcher.VerdictFull)
	refused := decision(switcher.VerdictRefuse, switcher.VerdictFull)
	for name, c := range map[string]struct {
		decision switcher.Decision
		wish     switcher.Level
		fallback string
		level    switcher.Level
		err      error
	}{
		"auto":                            {soft, switcher.LevelAuto, fallbackRefuse, switcher.LevelSoft, nil},
		"auto, which may fall back":       {soft, switcher.LevelAuto, fallbackFull, switcher.LevelSoft, nil},
		"soft":                            {soft, switcher.LevelSoft, fallbackRefuse, switcher.LevelSoft, nil},
		"full, though soft would do":      {soft, switcher.LevelFull, fallbackRefuse, switcher.LevelFull, nil},
		"auto, full needed":               {full, switcher.LevelAuto, fallbackRefuse, "", ErrFullReboot},
		"auto, full needed, fallback":     {full, switcher.LevelAuto, fallbackFull, switcher.LevelFull, nil},
		"soft, full needed":               {full, switcher.LevelSoft, fallbackRefuse, "", ErrFullReboot},
		"soft, full needed, fallback":     {full, switcher.LevelSoft, fallbackFull, "", ErrFullReboot},
		"full, full needed":               {full, switcher.LevelFull, fallbackRefuse, switcher.LevelFull, nil},
		"auto, not for this host":         {refused, switcher.LevelAuto, fallbackFull, "", ErrIncompatible},
		"full, not for this host, either": {refused, switcher.LevelFull, fallbackFull, "", ErrIncompatible},
	} {
		t.Run(name, func(t *testing.T) {
			level, err := choose(c.decision, c.wish, c.fallback)
			if level != c.level || !errors.Is(err, c.err) {
				t.Errorf("choose = %q, %v; want %q, %v", level, err, c.level, c.err)
			}
			if errors.Is(err, ErrFullReboot) && strings.Count(err.Error(), "\nbecause of full") != 2 {
				t.Errorf("the reasons are not on lines of their own: %q", err)
			}
		})
	}
}

// TestWithLevel: what is decided is what plan tells and apply does.
func TestWithLevel(t *testing.T) {
	decision := func(level switcher.Level, v switcher.Verdict) switcher.Decision {
		return switcher.Decision{Level: level, Checks: []switcher.Check{{Name: "check", Verdict: v, Reason: "reason"}}}
	}
	soft, full, refused := decision(switcher.LevelSoft, switcher.VerdictOK), decision(switcher.LevelFull, switcher.VerdictFull), decision(switcher.LevelNone, switcher.VerdictRefuse)
	for name, c := range map[string]struct {
		decision   switcher.Decision
		configured switcher.Level
		wish       switcher.Level
		booted     bool
		level      switcher.Level
		err        error
	}{
		"soft":                              {soft, switcher.LevelAuto, "", false, switcher.LevelSoft, nil},
		"full is configured":                {soft, switcher.LevelFull, "", false, switcher.LevelFull, nil},
		"full is configured, soft wished":   {soft, switcher.LevelFull, switcher.LevelSoft, false, switcher.LevelSoft, nil},
		"full needed":                       {full, switcher.LevelAuto, "", false, switcher.LevelFull, ErrFullReboot},
		"full needed, and booted for it":    {full, switcher.LevelAuto, "", true, switcher.LevelSoft, nil},
		"full configured, and booted":       {soft, switcher.LevelFull, "", true, switcher.LevelSoft, nil},
		"refused":                           {refused, switcher.LevelAuto, "", false, switcher.LevelNone, ErrIncompatible},
		"refused, though it was booted for": {refused, switcher.LevelAuto, "", true, switcher.LevelNone, ErrIncompatible},
	} {
		a := &Agent{}
		a.Config.Switch.Level, a.Config.Switch.Fallback = string(c.configured), fallbackRefuse
		d, err := a.withLevel(c.decision, c.wish, c.booted)
		if d.Level != c.level || !errors.Is(err, c.err) || len(d.Checks) != 1 {
			t.Errorf("%s: %+v, %v; want %s, %v", name, d, err, c.level, c.err)
		}
	}
}

func TestLanded(t *testing.T) {
	rec := &Record{Last: &Result{Outcome: switcher.Landed, Target: "v2"}}
	for _, c := range []struct {
		id, running string
		last        switcher.Outcome
		want        bool
	}{
		{"v2", switcher.HostRoot, switcher.Landed, true},
		{"v3", switcher.HostRoot, switcher.Landed, false},
		{"v2", "v1", switcher.Landed, false},
		{"v2", switcher.HostRoot, switcher.Rebooted, false},
	} {
		rec.Last.Outcome = c.last
		if got := rec.landed(c.id, switcher.Facts{Root: c.running}); got != c.want {
			t.Errorf("landed for %s on %s after %s is %v, want %v", c.id, c.running, c.last, got, c.want)
		}
	}
	if (&Record{}).landed("v2", switcher.Facts{Root: switcher.HostRoot}) {
		t.Error("landed without a switch")
	}
}
