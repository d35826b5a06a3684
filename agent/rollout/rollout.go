// Package rollout answers whether it is this host's turn to take a release. Every host has a position in the order in
// which the fleet takes a release: a number that it computes for itself, so that nobody keeps a list of hosts. Two
// releases, and two groups of hosts, have orders that are independent of each other.
package rollout

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/updatectl/updatectl/image/release"
)

// Slot returns the position of a host in the order of a release: from 0, for the first host, to less than 1. It is
// uniform over hosts. The machine ID is only the key of a hash: nobody can compute it from a slot.
func Slot(machineID, version, group string) float64 {
	const bits = 53 // of a float64 between 0 and 1
	mac := hmac.New(sha256.New, []byte(machineID))
	for _, part := range []string{"updatectl rollout", version, group} {
		fmt.Fprintf(mac, "%d:%s", len(part), part) // no two lists of parts are the same text
	}
	return float64(binary.BigEndian.Uint64(mac.Sum(nil))>>(64-bits)) / (1 << bits)
}

// Position returns the wariness if it is set, which is a fixed position: 0 is always first, 1 always last. Otherwise it
// returns the host's slot.
func Position(wariness *float64, machineID, version, group string) float64 {
	if wariness != nil {
		return *wariness
	}
	return Slot(machineID, version, group)
}

// Due returns when a position may take a release, between the start of the rollout and its end. Without steps, hosts
// come evenly over the duration. With steps, the hosts of a step come evenly over the time of the step: there is no
// moment at which many begin at once, and when a step ends, its share of the fleet has had its turn.
func Due(r release.Rollout, position float64) time.Time {
	share, steps := position*100, r.Steps
	if len(steps) == 0 {
		steps = []int{100}
	}
	each, before := 1/float64(len(steps)), 0.0
	for i, end := range steps {
		if end := float64(end); share < end || i == len(steps)-1 {
			part := (float64(i) + (share-before)/(end-before)) * each
			return r.Start.Add(time.Duration(min(part, 1) * float64(r.Duration)))
		}
		before = float64(end)
	}
	return r.Start.Add(r.Duration) // not reached: the last step returns
}

// Verdict is whether a host takes a release now.
type Verdict struct {
	// Go is whether it does.
	Go bool
	// Due is when its turn comes or came. It is zero without a rollout.
	Due time.Time
	// Paused is why nobody begins for now, Stopped why nobody begins with this release any more. At most one is set.
	Paused, Stopped string
}

// Decide says whether it is the turn of a position. Without a rollout, it always is.
func Decide(r *release.Rollout, position float64, now time.Time) Verdict {
	if r == nil {
		return Verdict{Go: true}
	}
	v := Verdict{Due: Due(*r, position), Paused: r.Paused, Stopped: r.Stopped}
	v.Go = v.Paused == "" && v.Stopped == "" && !now.Before(v.Due)
	return v
}

// Text says for people why a host waits, "" if it does not.
func (v Verdict) Text() string {
	switch {
	case v.Stopped != "":
		return "the release is stopped: " + v.Stopped
	case v.Paused != "":
		return "the rollout is paused: " + v.Paused
	case !v.Go:
		return "the turn of this host in the rollout is at " + v.Due.Format(time.RFC3339)
	}
	return ""
}
