package transition

import (
	"path/filepath"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

// KeepWithdrawn keeps what the /etc of a root withdraws that did not become good: a revocation may have arrived there
// since a command read it, if one ever did. A failure is logged, and stops nothing.
func (ns *Notes) KeepWithdrawn(root string) {
	etc := ns.Path(filepath.Join(record.StateDir, "roots", root, "etc"))
	if root == "" || root == switcher.HostRoot || !ns.Machine.Disk.Exists(etc) {
		return
	}
	if err := ns.KeepRestrictionsOf(root, etc); err != nil {
		ns.Log.Warn("what the /etc of a root withdraws may be lost", zap.String("root", root), zap.Error(err))
	}
}

// leftTrial returns the root that the host has left before it became good, by a record from before the host arrived
// where it is; "" if there is none.
func leftTrial(rec *record.Record, f facts.Facts) string {
	if !rec.Moving() {
		return ""
	}
	left := rec.Switch.Target
	switch {
	case rec.Switch.Verb == record.VerbBack:
		left = rec.Switch.From
	case rec.Phase == record.PhaseArmed && rec.Switch.BootID == f.BootID: // it has not begun, or failed before it ran
		return ""
	}
	if left == f.Root {
		return ""
	}
	return left
}
