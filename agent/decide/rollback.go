package decide

import (
	"slices"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
)

// Rollback decides to which root a rollback from the running root leads. To is the root that the operator named,
// "" for the one before. Watched is whether a guard runs: only then is a root that is being tried left like an
// unhealthy one. The error is a [roots.ErrNoRoot] or a [record.ErrGivenUp].
func Rollback(running string, rec *record.Record, to string, watched bool) Decision {
	trial := rec.EndsTrial(running) && watched
	switch {
	case to == "" && trial:
		to = rec.RollbackTarget()
	case to == "":
		to = rec.PreviousGood(running)
	}
	bad, isBad := rec.Bad[to]
	switch {
	case to == "":
		err := roots.NoRoot("there is no root before %s to roll back to", running)
		return Decision{Do: Nothing, Err: err}
	case to == running:
		return Decision{Do: Nothing, To: to}
	case isBad && !bad.RolledBack && !slices.Contains(rec.Good, to):
		return Decision{Do: Nothing, To: to, Err: bad.Err()}
	case !isBad && !slices.Contains(rec.Good, to) && !slices.Contains(rec.Pinned, to):
		err := roots.NoRoot("%s is not one of the good roots; `updatectl apply` switches to a published image, and after "+
			"`updatectl pin` a root that ran here can be rolled back to", to)
		return Decision{Do: Nothing, To: to, Err: err}
	case trial:
		return Decision{Do: LeaveTrial, To: to}
	}
	return Decision{Do: Switch, To: to}
}
