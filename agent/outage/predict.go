package outage

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Prediction is how long the next switch will take by the last ones.
type Prediction struct {
	// From is how many switches it is derived from.
	From int `json:"from"`
	// Outage is from the first port that closes to the last one that opens again.
	Outage time.Duration `json:"outage_ns"`
	// Ports are how long each port will be closed, those of the last switch in its order.
	Ports []Expected `json:"ports,omitempty"`
	// Delays are the services that the stop waited for when all others had ended, the longest first.
	Delays []Delay `json:"delays,omitempty"`
}

// Delay is a service that the stop waited for when all others had ended.
type Delay struct {
	Unit string `json:"unit"`
	// Times is how often, among the switches of the prediction, and Alone the median of how long.
	Times int           `json:"times"`
	Alone time.Duration `json:"alone_ns"`
}

// leastDelay is what counts as a delay: on a slow machine, looks are this far apart.
const leastDelay = 200 * time.Millisecond

// Expected is how long a port is expected to be closed.
type Expected struct {
	Name string        `json:"name"`
	Unit string        `json:"unit,omitempty"`
	Away time.Duration `json:"away_ns"`
}

// resume is the verb of a switch at a boot, when few services run yet.
const resume = "resume"

// window is how many switches a prediction looks back.
const window = 5

// Predict returns what a switch of a verb will take: the medians of the last good ones. Those of the same verb count
// alone, if there are any: the way back leads into a root that is in memory. It returns nil without any.
func Predict(list []Switch, verb string) *Prediction {
	measured := slices.DeleteFunc(slices.Clone(list), func(s Switch) bool {
		return !s.Good || s.Outage() == 0 || s.Verb == resume && verb != resume
	})
	same := slices.DeleteFunc(slices.Clone(measured), func(s Switch) bool { return s.Verb != verb })
	if len(same) > 0 {
		measured = same
	}
	if len(measured) == 0 {
		return nil
	}
	measured = measured[max(0, len(measured)-window):]
	p := &Prediction{From: len(measured)}
	var all []time.Duration
	away := map[string][]time.Duration{}
	for _, s := range measured {
		all = append(all, s.Outage())
		for _, port := range s.Ports {
			if t := port.Took(); t > 0 {
				away[port.Name] = append(away[port.Name], t)
			}
		}
	}
	p.Outage = Median(all)
	for _, port := range measured[len(measured)-1].Ports {
		if times := away[port.Name]; len(times) > 0 {
			p.Ports = append(p.Ports, Expected{port.Name, port.Unit, Median(times)})
		}
	}
	p.Delays = delays(measured)
	return p
}

// delays returns which services ended well after all others.
func delays(list []Switch) []Delay {
	alone := map[string][]time.Duration{}
	for _, s := range list {
		byEnd := slices.SortedFunc(slices.Values(s.Services), func(a, b Away) int { return cmp.Compare(b.Gone, a.Gone) })
		if len(byEnd) < 2 || byEnd[1].Gone == 0 {
			continue
		}
		if last := byEnd[0]; last.Gone-byEnd[1].Gone >= leastDelay {
			alone[last.Name] = append(alone[last.Name], last.Gone-byEnd[1].Gone)
		}
	}
	var all []Delay
	for _, unit := range slices.Sorted(maps.Keys(alone)) {
		all = append(all, Delay{unit, len(alone[unit]), Median(alone[unit])})
	}
	slices.SortStableFunc(all, func(a, b Delay) int { return cmp.Compare(b.Alone, a.Alone) })
	return all
}

// Median returns the median of a list, the mean of the two in the middle of an even one; 0 of none.
func Median(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(list))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
