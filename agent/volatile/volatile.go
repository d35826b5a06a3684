// Package volatile answers whether a switch to a throw-away copy of the state may be made, and what may be done from a
// root that runs on one. It promises that such a root is left only for one that is good or pinned.
package volatile

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/level"
)

var (
	// ErrRuns means that the host runs in a volatile root, which has to be left first.
	ErrRuns = errors.New("this root is volatile: it runs on a throw-away copy of the state")
	// ErrNot means that the switch cannot be volatile.
	ErrNot = errors.New("the switch cannot be volatile")
)

// MayBegin returns an [ErrRuns] if a command that leads to a root of its choice begins in a volatile one: the changes
// of that root in /etc and in the state would come along.
func MayBegin(f facts.Facts, command string) error {
	if !f.Volatile || command == "stage" { // which changes nothing but the agent's own directory
		return nil
	}
	return ErrRuns
}

// Rehearse does what could fail later, see [roots.Roots.Rehearse], for a switch at a level, which may be volatile. The
// error is an [ErrNot] if no copy of the state can be made, or if something would go on to use the state itself.
func Rehearse(ctx context.Context, r *roots.Roots, root store.Root, f facts.Facts, rec *record.Record, volatile bool,
	l level.Level) error {
	if !volatile {
		return r.Rehearse(root, f, rec)
	}
	if err := check(f, rec, root.ID, l); err != nil {
		return err
	}
	active, err := r.Machine.Units.Active(ctx)
	if err != nil {
		return err
	}
	if left := survivors(active); len(left) > 0 {
		return fmt.Errorf("%w: %s would go on, or get files back that it has open on the state itself; stop it first, with "+
			"`systemctl stop UNIT` and `systemctl clean --what=fdstore UNIT`", ErrNot, strings.Join(left, ", "))
	}
	if err := roots.RehearseVolatile(r, root, f, rec); errors.Is(err, assembly.ErrVolatile) {
		return fmt.Errorf("%w: %w", ErrNot, err)
	} else if err != nil {
		return err
	}
	return nil
}

// check returns an ErrNot for a root or a level that a volatile switch cannot have.
func check(f facts.Facts, rec *record.Record, root string, l level.Level) error {
	switch {
	case l != level.Soft:
		return fmt.Errorf("%w: it takes a soft reboot, and the level of this one is %s", ErrNot, l)
	case root == f.Root:
		return fmt.Errorf("%w: %s runs already", ErrNot, root)
	case root == rec.LastGood():
		return fmt.Errorf("%w: %s is the last good root, and the host needs another one to roll back to", ErrNot,
			root)
	}
	return nil
}

// Left returns why the root that an operator rolls back from is marked bad, nil for a volatile one: whoever tried a
// root does not refuse it by ending the trial.
func Left(f facts.Facts) *record.Bad {
	if f.Volatile {
		return nil
	}
	return &record.Bad{Reason: record.RolledBack, RolledBack: true}
}

// Nothing returns an [ErrNot] for an apply that finds nothing to switch to.
func Nothing() error {
	return fmt.Errorf("%w: no other image is published; `updatectl switch ROOT --volatile` tries one that is staged",
		ErrNot)
}

// survivors returns the services that go on over a soft reboot, and those whose open files may, also those that they
// store when they stop. What systemd's own services store are sockets and devices.
func survivors(active []keep.Active) (names []string) {
	for _, u := range active {
		ofSystemd := strings.HasPrefix(u.Name, "systemd-")
		if strings.HasSuffix(u.Name, ".service") && !strings.HasPrefix(u.Name, "updatectl") &&
			(u.Survives && u.Runs || u.Preserves && !ofSystemd) {
			names = append(names, u.Name)
		}
	}
	return names
}
