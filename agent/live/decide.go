package live

import "github.com/updatectl/updatectl/switcher/level"

// Decide returns the level of a change that only loads live patches.
func Decide(list []LivePatch) *level.Decision {
	d := &level.Decision{Level: level.Live}
	for _, p := range list {
		if p.Unfinished() {
			d.Checks = append(d.Checks, level.Check{
				Name: "live patch " + p.Name, Verdict: level.VerdictOK,
				Reason: "it is for the running kernel, and nothing is restarted for it",
			})
		}
	}
	return d
}
