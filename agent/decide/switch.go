package decide

import "github.com/updatectl/updatectl/agent/record"

// SwitchTo decides what a switch from the running root to a staged one does. Retry accepts a root that was given up.
// The error is a [record.ErrGivenUp].
func SwitchTo(running string, rec *record.Record, to string, retry bool) Decision {
	bad, isBad := rec.Bad[to]
	switch {
	case to == running:
		return Decision{Do: Nothing, To: to}
	case isBad && !bad.RolledBack && !retry:
		return Decision{Do: Refuse, To: to, Err: bad.Err()}
	}
	return Decision{Do: Switch, To: to}
}
