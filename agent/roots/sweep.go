package roots

import (
	"errors"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
)

// halfMade are patterns of what a killed command leaves: files and trees without their final names. The store of roots
// sweeps its own.
var halfMade = []string{
	record.StateDir + "/.*.json.*",     // the record
	record.StateDir + "/*.json.new-*",  // the ledger of uids and gids
	record.StateDir + "/roots/*/*.new", // a graft or an /etc
	record.StateDir + "/roots/*/etc" + EtcMerged,
	record.StateDir + "/roots/*/etc" + EtcPrepared,
	record.StateDir + "/roots/*/etc" + EtcPrepared + machine.EtcNote,
	switcher.RunDir + "/.*.json.*", // the stamp
}

// Sweep removes what killed commands left half made. The caller must hold the lock, and no switch may be under way.
// What cannot be removed is logged.
func Sweep(r *Roots) {
	err := r.Machine.Trees.Sweep()
	for _, pattern := range halfMade {
		halves, gerr := r.Machine.Disk.Glob(r.Path(pattern))
		err = errors.Join(err, gerr)
		for _, half := range halves {
			err = errors.Join(err, r.Machine.Disk.RemoveAll(half))
		}
	}
	if err != nil {
		r.Log.Warn("cannot remove half-made files of an earlier command", zap.Error(err))
	}
}
