package outage

import "time"

// Analysis is a switch with what follows from its moments.
type Analysis struct {
	Switch
	// Outage is as [Switch.Outage] returns it, Phases as [Switch.Phases] does.
	Outage time.Duration `json:"outage_ns"`
	Phases []Phase       `json:"phases"`
}

// Analyze returns the last switches of a list, at most so many, the latest last.
func Analyze(list []Switch, last int) []Analysis {
	all := []Analysis{}
	for _, s := range list[max(0, len(list)-last):] {
		all = append(all, Analysis{s, s.Outage(), s.Phases()})
	}
	return all
}
