package keep

import (
	"path"
	"slices"
	"strings"
)

// Fate is what becomes of a unit at a soft reboot.
type Fate string

// The fates, in the order in which they are reported.
const (
	Survives         Fate = "survives"
	KeepsDescriptors Fate = "keeps descriptors"
	Restarts         Fate = "restarts"
	GoesAway         Fate = "goes away"
	IsNew            Fate = "is new"
)

// UnitFate is what becomes of a unit, and why.
type UnitFate struct {
	Unit   string `json:"unit"`
	Fate   Fate   `json:"fate"`
	Reason string `json:"reason"`
	// Named is whether [[keep]] names the unit.
	Named bool `json:"named,omitempty"`
	// Fault is what is wrong with a unit that claims to survive: it is stopped all the same, or holds the old root.
	Fault string `json:"fault,omitempty"`
}

// Active is an active unit, as far as its fate depends on it.
type Active struct {
	Name string
	// Stops is whether a soft reboot stops it, Survives whether its processes are left alone, and Runs whether it has any.
	Stops, Survives, Runs bool
	// Stays is whether the start of the new root leaves it active if nothing there asks for it (IgnoreOnIsolate=).
	Stays bool
	// Transient is whether it was made at run time, and Generated whether a generator made it.
	Transient, Generated bool
	// Preserves is whether its store of file descriptors is preserved when it stops, and Stored what is in it.
	Preserves bool
	Stored    int
	// Group is its control group, and Holds what its processes hold of the running root. They count if it survives.
	Group string
	Holds []string
}

// Kinds are the endings of the units whose fates are known: they run something, or have it run.
var Kinds = []string{".service", ".socket", ".timer", ".path"}

// Fates returns what becomes of the active units, and which units the new root starts besides, sorted by name. What
// generators, devices and others start on demand is expected to come back if the new root has it. The agent's own units
// are left out.
func Fates(active []Active, kept []Kept, here, there Tree) []UnitFate {
	startedHere, startedThere := here.Started(), there.Started()
	var fates []UnitFate
	isActive := map[string]bool{}
	for _, a := range active {
		isActive[a.Name] = true
		if isOther(a.Name) {
			continue
		}
		_, exists := there.Unit(a.Name)
		u := UnitFate{Unit: a.Name}
		if n := slices.IndexFunc(kept, func(k Kept) bool { return k.Unit == a.Name && k.Refusal == "" }); n >= 0 {
			u.Named, u.Fate, u.Reason = true, fateOf(kept[n].Way), kept[n].Reason()
		} else {
			u.Fate, u.Reason = fate(a, exists, startedHere[a.Name], startedThere[a.Name])
			u.Fault = fault(a, startedThere[a.Name])
		}
		fates = append(fates, u)
	}
	for name := range startedThere {
		if !isActive[name] && !startedHere[name] && !isOther(name) {
			fates = append(fates, UnitFate{Unit: name, Fate: IsNew, Reason: "the new root starts it, and this one does not"})
		}
	}
	slices.SortFunc(fates, func(a, b UnitFate) int { return strings.Compare(a.Unit, b.Unit) })
	return fates
}

// fault returns what is wrong with a unit that claims to survive, and that [[keep]] does not name; "" for nothing.
func fault(a Active, startedThere bool) string {
	const claims = "it claims to survive (SurviveFinalKillSignal=yes), but "
	switch {
	case !a.Survives:
	case a.Stops:
		return claims + "a soft reboot stops it: it has to say DefaultDependencies=no, and no Conflicts=shutdown.target"
	case !a.Stays && !startedThere:
		return claims + "the new root stops it, since nothing there wants it: it has to say IgnoreOnIsolate=yes"
	case len(a.Holds) > 0:
		return "it survives and holds the root that is left: " + strings.Join(a.Holds, ", ")
	}
	return ""
}

// isOther reports whether the fate of a unit is not looked at.
func isOther(name string) bool {
	return !slices.Contains(Kinds, path.Ext(name)) || strings.HasPrefix(name, "updatectl")
}

func fateOf(w Way) Fate {
	if w == Process {
		return Survives
	}
	return KeepsDescriptors
}

// Reason returns what becomes of a unit that is kept, or why it is not.
func (k Kept) Reason() string {
	if k.Refusal != "" {
		return k.Refusal
	}
	switch k.Way {
	case Descriptors:
		return "it restarts and gets its file descriptors back"
	case Socket:
		return "it stays open; connections wait until " + k.Service + " is back"
	}
	return "its processes go on"
}

// journalSocket is not stopped. When the arming unit runs its command, which logs, systemd cannot start the journal for
// it, and gives the socket up, as any that is not held.
const journalSocket = "systemd-journald.socket"

// fate returns what becomes of a unit that [[keep]] does not name. Exists is whether the new root has it.
func fate(a Active, exists, startedHere, startedThere bool) (Fate, string) {
	lasts := !a.Stops && (!a.Runs || a.Survives)
	switch {
	case a.Name == journalSocket:
		return Restarts, "nothing stops it, but what stops last still logs, and systemd closes it then"
	case lasts && (startedThere || a.Stays):
		if strings.HasSuffix(a.Name, ".service") && !a.Runs {
			return Survives, "nothing stops it: it stays active"
		}
		return Survives, "nothing stops it"
	case a.Transient:
		return GoesAway, "it was made at run time"
	case a.Generated:
		return Restarts, "a generator makes it anew"
	case !exists && startedHere:
		return GoesAway, "the new root does not have it"
	case exists && startedHere && !startedThere:
		return GoesAway, "the new root does not start it"
	case a.Preserves && a.Stored > 0:
		return KeepsDescriptors, "its store of file descriptors is preserved (FileDescriptorStorePreserve=yes)"
	case startedThere:
		return Restarts, "the new root starts it"
	case exists:
		return Restarts, "when something asks for it, as here"
	}
	return GoesAway, "the new root does not have it"
}
