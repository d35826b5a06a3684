package roots

import (
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/switcher/assembly"
	"github.com/updatectl/updatectl/switcher/copies"
	"github.com/updatectl/updatectl/switcher/etc"
)

// CheckOwners returns an ErrIncompatible if files of the image would belong to another name on this host, by the plan
// of its /etc.
func CheckOwners(report etc.Report) error {
	if refused := report.Correction.Refused; len(refused) > 0 {
		return fmt.Errorf("%w: owners that cannot be told apart on this host: %s; give these names numbers of their own",
			ErrIncompatible, strings.Join(refused, "; "))
	}
	return nil
}

// OwnersOf returns the host's uids and gids for the files of a root that has its /etc. No way back depends on them: if
// they cannot be read for a root that ran before, its files show the numbers of the image.
func OwnersOf(r *Roots, next assembly.Next) (copies.Owners, error) {
	owners, err := r.Machine.Trees.EtcOwners(next, next.Etc)
	if err != nil && next.Return {
		r.Log.Warn("cannot read this host's numbers for the files of the root; they show those of the image",
			zap.String("root", next.ID), zap.Error(err))
		return copies.Owners{}, nil
	}
	return owners, err
}

// preflight checks a root with its graft. A root that ran before is accepted even if its files can only be shown with
// the numbers of the image.
func preflight(r *Roots, next assembly.Next) error {
	err := r.Machine.Trees.Preflight(next)
	if next.Return && errors.Is(err, assembly.ErrNumbers) {
		r.Log.Warn("files of the root will show the numbers of the image", zap.String("root", next.ID), zap.Error(err))
		next.Owners = copies.Owners{}
		err = r.Machine.Trees.Preflight(next)
	}
	return incompatible(err)
}
