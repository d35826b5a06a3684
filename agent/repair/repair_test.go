package repair

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/facts"
)

// interruptedTrees are roots whose check is interrupted after it found damage. Any other call panics.
type interruptedTrees struct{ machine.Trees }

func (interruptedTrees) Fsck(context.Context) (store.FsckReport, error) {
	return store.FsckReport{Damage: []store.Damage{{Path: "objects/00/11"}}}, context.Canceled
}

// TestInterruptedFsck: an interrupted check is an error, and not an answer that names a part of the damage. Nothing is
// repaired by it.
func TestInterruptedFsck(t *testing.T) {
	k := Fsck{Host: host.On(machine.Machine{Trees: interruptedTrees{}}, zap.NewNop())}
	if _, err := k.Look(t.Context()); !errors.Is(err, context.Canceled) || errors.Is(err, ErrDamage) {
		t.Errorf("Look: %v", err)
	}
	if _, err := k.Repair(t.Context(), facts.Facts{}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrDamage) {
		t.Errorf("Repair: %v", err)
	}
}
