package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher"
)

// halfNames are what a command that was killed leaves: files and trees that were to get their final name. The store
// sweeps its own.
var halfNames = []string{
	record.StateDir + "/.*.json.*",     // the record
	record.StateDir + "/*.json.new-*",  // the ledger of numbers
	record.StateDir + "/roots/*/*.new", // a graft, an /etc
	record.StateDir + "/roots/*/etc" + roots.EtcMerged,
	switcher.RunDir + "/.*.json.*", // the stamp
}

// sweep removes them. Only one who holds the lock may do that, with no switch under way.
func (a *Agent) sweep() error {
	var errs []error
	for _, pattern := range halfNames {
		halves, err := filepath.Glob(a.Path(pattern))
		errs = append(errs, err)
		for _, half := range halves {
			errs = append(errs, os.RemoveAll(half))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot sweep up: %w", err)
	}
	return nil
}
