package roots

import (
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/facts"
)

// RehearseVolatile is [Roots.Rehearse] for a root that runs on a throw-away copy of the state. It gets this agent
// whatever its image has: another one may take the copies for the state. The error is an [assembly.ErrVolatile] if no
// copy can be made.
func RehearseVolatile(r *Roots, root store.Root, f facts.Facts, rec *record.Record) error {
	n := r.Next(root.ID, f)
	n.Volatile = true
	if err := r.Machine.Mounts.CheckVolatile(r.Machine.Trees.WithFstab(n, "/etc")); err != nil {
		return err
	}
	return rehearse(r, root, n, f, rec)
}
