package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
)

// Resumed is what a boot of the kernel went on to.
type Resumed struct {
	// Root is the root that the host is on its way to, "" when it stays; Reason says why.
	Root   string `json:"root,omitempty"`
	Reason string `json:"reason"`
}

const again = "userspace was started before since the kernel was booted"

// Resume goes on from a boot of the kernel, which lands on the mutable host, to the last good root, or to the one that the
// kernel was booted for. It runs once, before ordinary services start, and anything that keeps it from going on leaves
// the host where it is.
func (a *Agent) Resume(ctx context.Context) (Resumed, error) {
	if err := a.requireLive(); err != nil {
		return Resumed{}, err
	}
	unlock, err := a.lock(ctx, verbResume, true)
	if err != nil {
		return Resumed{}, err
	}
	defer unlock()
	first, err := a.firstStart()
	if err != nil || !first {
		return Resumed{Reason: again}, err
	}
	start := a.Now().UTC()
	st, facts, rec, err := a.begin(ctx)
	if err != nil && !errors.Is(err, ErrSwitch) { // a switch that a boot interrupted is recorded now
		return Resumed{}, err
	}
	landed := rec.Last != nil && rec.Last.Outcome == level.Landed && !rec.Last.At.Before(start) // once, just now
	if facts.SoftReboots > 0 {                                                                  // by hand, before there was a stamp
		return Resumed{Reason: again}, nil
	}
	to, verb, why := rec.resume(facts, landed)
	if to == "" {
		a.Log.Info("the host stays where the kernel booted it", zap.String("reason", why))
		return Resumed{Reason: why}, nil
	}
	err = a.goOn(ctx, st, facts, rec, to, verb)
	if last := rec.good(); err != nil && verb == verbApply && last != switcher.HostRoot {
		a.Log.Error("cannot go on to the root that the kernel was booted for; the last good one is next", zap.String("root", to), zap.Error(err))
		to, why = last, fmt.Sprintf("%s cannot be gone on to: %v", to, err)
		err = a.goOn(ctx, st, facts, rec, to, verbResume)
	}
	return Resumed{Root: to, Reason: why}, err
}

// goOn makes a root ready and asks for the switch.
func (a *Agent) goOn(ctx context.Context, st *store.Store, f facts.Facts, rec *Record, to, verb string) error {
	s := Switch{Verb: verb, Version: rec.Accepted[to].Version}
	if verb == verbResume {
		version, err := a.ready(st, to, f, rec)
		if err != nil {
			return err
		}
		s.Version = cmp.Or(s.Version, version)
		s.Before.Unknown = true // so early in a boot there is nothing to see
		return a.switchTo(ctx, rec, f, s, to)
	}
	s.Before = rec.Switch.Before // as it was when the host was left for this
	if left := cmp.Or(rec.Switch.Back, rec.Switch.From); left != f.Root {
		s.Back = left
	}
	root, err := st.Root(to)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNoRoot, to, err)
	}
	if err := a.rehearse(st, root, f, rec); err != nil {
		return err
	}
	return a.switchTo(ctx, rec, f, s, to)
}

// resume decides where a boot of the kernel goes on to, "" for nowhere, and why; landed tells that the kernel was booted for
// the target of the last switch. A root that is being tried is never
// resumed into: it has to be good first.
func (r *Record) resume(f facts.Facts, landed bool) (to, verb, why string) {
	last := r.good()
	refused := level.DecideHost(f).Refused()
	switch {
	case f.Root != switcher.HostRoot:
		return "", "", fmt.Sprintf("%s is mounted at /, not the mutable host", f.Root)
	case r.moving():
		return "", "", "a switch to the mutable host is not confirmed yet"
	case !landed && last == switcher.HostRoot:
		return "", "", "the mutable host is the last good root"
	case len(refused) > 0: // the shutdown would hang at every boot
		return "", "", strings.Join(refused, "; ")
	case landed:
		return r.Last.Target, verbApply, "the kernel was booted for it"
	case r.resumed(last) >= maxAttempts:
		return "", "", fmt.Sprintf("%s was resumed %d times and did not become good; `updatectl apply` or `updatectl rollback` goes on", last, r.resumed(last))
	}
	return last, verbResume, "it is the last good root"
}

// firstStart tells whether this is the first userspace since the kernel was booted, and is remembered before anything is
// done: /run is new with each boot.
func (a *Agent) firstStart() (bool, error) {
	file := a.path(resumeStamp)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return false, fmt.Errorf("cannot note that the host was started: %w", err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot note that the host was started: %w", err)
	}
	return true, f.Close()
}
