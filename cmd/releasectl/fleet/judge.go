package fleet

import "cmp"

// kind is whether a host needs somebody.
type kind int

const (
	rests kind = iota // there is nothing to say
	waits             // it goes on later, or when somebody lets it
	fails             // somebody has to look
)

// words are the reasons in docs/exit-codes.md, and what each says about a host whose last unattended run ended with it.
var words = map[string]kind{
	"blocked": waits, "busy": waits, "trying": waits, "barrier": waits, "volatile": waits, "live-patch": waits,
	"restarting": waits, "inhibitor": waits, "paused": waits, "window": waits, "people": waits, "battery": waits,
	"metered": waits, "rollout": waits, "lock": waits, "hook": waits, "full-reboot": waits, "interrupted": waits,

	"error": fails, "usage": fails, "not-trusted": fails, "stale": fails, "incompatible": fails, "no-space": fails,
	"unreachable": fails, "unhealthy": fails, "given-up": fails,
}

// outcomes are the outcomes of a switch that count as a failure, and what updatectl status --wait calls them.
var outcomes = map[string]string{
	"unhealthy": "unhealthy", "rolled back": "unhealthy",
	"pending": "error", "not armed": "error", "fell back": "error", "rebooted": "error", "landed": "error",
	"old kernel": "error", "elsewhere": "error", "stuck": "error",
}

// switched is the outcome of a switch that came to its root.
const switched = "switched"

// judge returns what there is to say about a host. What happens now counts before what has happened, and a failure
// before what the host waits for. A word that is not known is a failure: somebody has to look what it means.
func judge(s said) (Finding, kind) {
	run, how := lastRun(s)
	switch {
	case s.Schema == errorSchema:
		return Finding{Reason: cmp.Or(s.Reason, "error"), Text: s.Error}, fails
	case s.Switch != nil:
		return Finding{Reason: "trying", Text: "it is switching to " + cmp.Or(s.Switch.Version, s.Switch.Target)}, waits
	case s.Last != nil && s.Last.Outcome != switched:
		f := Finding{Reason: cmp.Or(outcomes[s.Last.Outcome], "error"), Text: s.Last.Reason}
		if f.Reason != s.Last.Outcome {
			f.Text = s.Last.Outcome + ": " + f.Text
		}
		return f, fails
	case how == fails:
		return run, fails
	case s.Refused != nil: // a later run may have ended with another word, such as window
		return Finding{Reason: "refused", Text: s.Refused.Reason}, fails
	case s.Paused != nil:
		return Finding{Reason: "paused", Text: s.Paused.Reason, Until: s.Paused.Until}, waits
	case s.Volatile:
		return Finding{Reason: "volatile", Text: "it runs on a throw-away copy of the state"}, waits
	case how == waits:
		return run, waits
	case s.Staged != nil:
		return Finding{Reason: "staged", Text: cmp.Or(s.Staged.Version, s.Staged.Root) + " is staged"}, waits
	}
	return Finding{}, rests
}

// lastRun returns what the last unattended run says about a host. A run before the last switch says nothing.
func lastRun(s said) (Finding, kind) {
	u := s.Unattended
	if u == nil || u.Reason == "" || s.Last != nil && s.Last.At.After(u.At) {
		return Finding{}, rests
	}
	how, known := words[u.Reason]
	if !known {
		how = fails
	}
	return Finding{Reason: u.Reason, Text: u.Text, Until: u.Until}, how
}
