package roots

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/switcher/level"
)

// TestChooseLevel: which level follows from the verdicts, the wish and the fallback, and which error.
func TestChooseLevel(t *testing.T) {
	decision := func(verdicts ...level.Verdict) level.Decision {
		d := level.Decision{Level: level.Soft}
		for _, v := range verdicts {
			d.Checks = append(d.Checks, level.Check{Name: string(v), Verdict: v, Reason: "because of " + string(v)})
		}
		return d
	}
	soft := decision(level.VerdictOK, level.VerdictNote)
	full := decision(level.VerdictOK, level.VerdictFull, level.VerdictFull)
	refused := decision(level.VerdictRefuse, level.VerdictFull)
	for name, c := range map[string]struct {
		decision level.Decision
		wish     level.Level
		fallback string
		level    level.Level
		err      error
	}{
		"auto":                            {soft, level.Auto, config.FallbackRefuse, level.Soft, nil},
		"auto, which may fall back":       {soft, level.Auto, config.FallbackFull, level.Soft, nil},
		"soft":                            {soft, level.Soft, config.FallbackRefuse, level.Soft, nil},
		"full, though soft would do":      {soft, level.Full, config.FallbackRefuse, level.Full, nil},
		"auto, full needed":               {full, level.Auto, config.FallbackRefuse, "", ErrFullReboot},
		"auto, full needed, fallback":     {full, level.Auto, config.FallbackFull, level.Full, nil},
		"soft, full needed":               {full, level.Soft, config.FallbackRefuse, "", ErrFullReboot},
		"soft, full needed, fallback":     {full, level.Soft, config.FallbackFull, "", ErrFullReboot},
		"full, full needed":               {full, level.Full, config.FallbackRefuse, level.Full, nil},
		"auto, not for this host":         {refused, level.Auto, config.FallbackFull, "", ErrIncompatible},
		"full, not for this host, either": {refused, level.Full, config.FallbackFull, "", ErrIncompatible},
	} {
		t.Run(name, func(t *testing.T) {
			level, err := chooseLevel(c.decision, c.wish, c.fallback)
			if level != c.level || !errors.Is(err, c.err) {
				t.Errorf("chooseLevel = %q, %v; want %q, %v", level, err, c.level, c.err)
			}
			if errors.Is(err, ErrFullReboot) && strings.Count(err.Error(), "\nbecause of full") != 2 {
				t.Errorf("the reasons are not on lines of their own: %q", err)
			}
		})
	}
}

// TestWithLevel: plan shows and apply uses the level decided here.
func TestWithLevel(t *testing.T) {
	decision := func(l level.Level, v level.Verdict) level.Decision {
		return level.Decision{Level: l, Checks: []level.Check{{Name: "check", Verdict: v, Reason: "reason"}}}
	}
	soft, full := decision(level.Soft, level.VerdictOK), decision(level.Full, level.VerdictFull)
	refused := decision(level.None, level.VerdictRefuse)
	for name, c := range map[string]struct {
		decision   level.Decision
		configured level.Level
		wish       level.Level
		booted     bool
		level      level.Level
		err        error
	}{
		"soft":                              {soft, level.Auto, "", false, level.Soft, nil},
		"full is configured":                {soft, level.Full, "", false, level.Full, nil},
		"full is configured, soft wished":   {soft, level.Full, level.Soft, false, level.Soft, nil},
		"full needed":                       {full, level.Auto, "", false, level.Full, ErrFullReboot},
		"full needed, and booted for it":    {full, level.Auto, "", true, level.Soft, nil},
		"full configured, and booted":       {soft, level.Full, "", true, level.Soft, nil},
		"refused":                           {refused, level.Auto, "", false, level.None, ErrIncompatible},
		"refused, though it was booted for": {refused, level.Auto, "", true, level.None, ErrIncompatible},
	} {
		rs := newRoots(t)
		rs.Config.Switch.Level, rs.Config.Switch.Fallback = string(c.configured), config.FallbackRefuse
		d, err := rs.withLevel(c.decision, c.wish, c.booted)
		if d.Level != c.level || !errors.Is(err, c.err) || len(d.Checks) != 1 {
			t.Errorf("%s: %+v, %v; want %s, %v", name, d, err, c.level, c.err)
		}
	}
}

// TestIncompatible: a fault of the machine is no fault of the image.
func TestIncompatible(t *testing.T) {
	for _, errno := range []error{
		unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.ESTALE, unix.ENOMEM, unix.EMFILE, unix.ENFILE,
	} {
		if err := incompatible(fmt.Errorf("cannot read it: %w", errno)); errors.Is(err, ErrIncompatible) {
			t.Errorf("%v makes the image incompatible", errno)
		}
	}
	if err := incompatible(errors.New("no os-release")); !errors.Is(err, ErrIncompatible) {
		t.Errorf("what an image lacks is %v", err)
	}
}
