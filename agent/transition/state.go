package transition

import (
	"errors"
	"io/fs"
	"slices"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/kept"
)

// noteState notes in a switch where the state of the host lies. What was mounted at the last switch and is gone is
// mounted again first: otherwise the next root would be without it, too.
func noteState(h *host.Host, s *record.Switch, rec *record.Record, f facts.Facts, next assembly.Next) {
	s.Kept = h.Machine.Mounts.Kept(next)
	paths := append(slices.Clone(next.Persist), next.HostMount)
	if gone := kept.Gone(rec.Switch.KeptSince(f.BootID), s.Kept, paths); len(gone) > 0 {
		restoreState(h, gone)
		s.Kept = h.Machine.Mounts.Kept(next)
		s.Kept = append(s.Kept, kept.Gone(gone, s.Kept, paths)...) // the arming step tries again
	}
	s.State = h.Machine.Mounts.Carried(next)
}

// MakeWritable undoes the read-only remounts of a bad root: the root that the host returns to needs its state. A
// directory that was read-only before, which was is about, stays so.
func (ns *Notes) MakeWritable(persist []string, was []kept.Dir) {
	for _, p := range persist {
		if slices.ContainsFunc(was, func(d kept.Dir) bool { return d.Path == p && d.ReadOnly() }) {
			continue
		}
		if err := ns.Machine.Mounts.MakeWritable(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			ns.Log.Warn("cannot make the state writable", zap.String("path", p), zap.Error(err))
		}
	}
}

// restoreState mounts what is missing of the state again. What fails is logged.
func restoreState(h *host.Host, dirs []kept.Dir) {
	if err := h.Machine.Mounts.Restore(dirs, roots.HostMount); err != nil {
		h.Log.Warn("state of this host is not mounted any more", zap.Error(err))
	}
}
