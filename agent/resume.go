package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/switcher"
)

// Resumed is what a boot of the kernel went on to.
type Resumed struct {
	// Root is the root that the host is on its way to, "" when it stays; Reason says why.
	Root   string `json:"root,omitempty"`
	Reason string `json:"reason"`
}

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
		return Resumed{Reason: "userspace was started before since the kernel was booted"}, err
	}
	start := a.Now().UTC()
	st, facts, rec, err := a.begin(ctx)
	if err != nil && !errors.Is(err, ErrSwitch) { // a switch that a boot interrupted is recorded now
		return Resumed{}, err
	}
	landed := rec.Last != nil && rec.Last.Outcome == switcher.Landed && !rec.Last.At.Before(start) // once, just now
	to, verb, why := rec.resume(facts, landed)
	if to == "" {
		a.Log.Info("the host stays where the kernel booted it", zap.String("reason", why))
		return Resumed{Reason: why}, nil
	}
	s := Switch{Verb: verb, Version: rec.Accepted[to].Version}
	if verb == verbApply {
		if root := cmp.Or(rec.Switch.Back, rec.Switch.From); root != facts.Root {
			s.Back = root
		}
		root, err := st.Root(to)
		if err != nil {
			return Resumed{}, fmt.Errorf("%w: %s: %w", ErrNoRoot, to, err)
		}
		if err := a.rehearse(st, root, facts, rec); err != nil {
			return Resumed{}, err
		}
	} else if s.Version, err = a.ready(st, to, facts, rec); err != nil {
		return Resumed{}, err
	}
	return Resumed{Root: to, Reason: why}, a.switchTo(ctx, rec, facts, s, to)
}

// resume decides where a boot of the kernel goes on to, "" for nowhere, and why; landed tells that the kernel was booted for
// the target of the last switch. A root that is being tried is never
// resumed into: it has to be good first.
func (r *Record) resume(f switcher.Facts, landed bool) (to, verb, why string) {
	last := r.good()
	switch {
	case f.Root != switcher.HostRoot:
		return "", "", fmt.Sprintf("%s is mounted at /, not the mutable host", f.Root)
	case !slices.Contains(resting, r.Phase):
		return "", "", "a switch to the mutable host is not confirmed yet"
	case landed:
		return r.Last.Target, verbApply, "the kernel was booted for it"
	case last == switcher.HostRoot:
		return "", "", "the mutable host is the last good root"
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
