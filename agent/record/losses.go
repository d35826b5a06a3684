package record

import "slices"

// LossKind is a kind of what a host can lose when it switches to an image, and a person can accept.
type LossKind string

// The kinds of losses. [LossKinds] lists them.
const (
	// LossAccess is a way in that would close, or one that would open: see the check "ways in".
	LossAccess LossKind = "access"
	// LossServices is a service of the host root that the first image does not run.
	LossServices LossKind = "services"
)

// LossKinds are all kinds of losses.
var LossKinds = []LossKind{LossAccess, LossServices}

// SortLosses divides losses of a kind into those that somebody still has to accept and those that a person has
// accepted, by this command or before. It notes what is accepted by this command, so that nobody is asked again.
func SortLosses(r *Record, kind LossKind, losses []string) (open, accepted []string) {
	for _, loss := range losses {
		switch {
		case slices.Contains(r.Losses[kind], loss):
		case !slices.Contains(r.Accepting, kind):
			open = append(open, loss)
			continue
		default:
			if r.Losses == nil {
				r.Losses = map[LossKind][]string{}
			}
			r.Losses[kind] = append(r.Losses[kind], loss)
		}
		accepted = append(accepted, loss)
	}
	return open, accepted
}
