package decide

import (
	"fmt"
	"slices"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
)

// Wish is what the operator asks of an apply.
type Wish struct {
	// Unattended is whether a timer applies, so that nobody is there to decide. Retry accepts an image that was given up.
	Unattended, Retry bool
}

// Offering is the part of what was published that apply decides by.
type Offering struct {
	// Err is why nothing could be fetched; the other fields are empty then.
	Err error
	// Root is the root to run.
	Root string
	// Image is whether an image is published; if not, the release has live patches only.
	Image bool
}

// Apply decides what apply does with what is published. Stay is whether the kernel command line keeps the host on its
// host root. Several cases may apply to a host; the first one counts.
func Apply(f facts.Facts, rec *record.Record, off Offering, w Wish, stay bool) Decision {
	last := rec.LastGood()
	resumes := rec.ResumeAttempts(last)
	stranded := Stranded(f, rec, w)
	bad, isBad := rec.Bad[off.Root]
	failed := rec.Failed[off.Root]
	switch {
	case stay:
		return Decision{Do: Stay, Why: "the kernel command line has updatectl.resume=0, so the host stays on its " +
			"host root; `updatectl apply` or `updatectl rollback` continues"}
	case off.Err != nil && stranded:
		return Decision{Do: Resume, Why: "nothing newer is available: " + off.Err.Error()}
	case off.Err != nil:
		return Decision{Do: Refuse, Err: off.Err}
	case isBad && off.Root == f.Root && !w.Retry && stranded:
		return Decision{Do: Resume, Why: whyStranded(f, rec)}
	case off.Root == f.Root:
		return Decision{Do: LiveOnly}
	case !off.Image && w.Unattended && resumes >= record.MaxAttempts:
		return Decision{Do: Skip, Why: fmt.Sprintf("%d attempts to resume %s after a full reboot failed",
			resumes, last)}
	case !off.Image:
		return Decision{Do: Resume, Why: whyStranded(f, rec)}
	case isBad && !w.Retry && stranded:
		return Decision{Do: Resume, Why: "the published image was " + bad.WhenAndWhy()}
	case isBad && !w.Retry && w.Unattended:
		return Decision{Do: Skip, Why: bad.WhenAndWhy()}
	case isBad && !w.Retry:
		return Decision{Do: Refuse, Err: bad.Err()}
	case w.Unattended && off.Root == last && resumes >= record.MaxAttempts:
		return Decision{Do: Skip, Why: fmt.Sprintf("%d attempts to resume it after a full reboot failed", resumes)}
	case stranded && failed.Times >= record.MaxAttempts:
		return Decision{Do: Resume, Why: fmt.Sprintf("%d switches to the published image failed, "+
			"the last one because %s", failed.Times, failed.Reason)}
	case w.Unattended && failed.Times >= record.MaxAttempts:
		return Decision{Do: Skip, Why: fmt.Sprintf("%d switches to it failed, the last one because %s; "+
			"`updatectl apply` tries again", failed.Times, failed.Reason)}
	}
	return Decision{Do: Switch}
}

// OnHostRoot reports whether a full reboot landed on the host root while the last good root is an image root.
func OnHostRoot(f facts.Facts, rec *record.Record) bool {
	return f.Root == switcher.HostRoot && rec.LastGood() != switcher.HostRoot
}

// inBadRoot reports whether the host rests in a root that was given up: who had to leave it was killed.
func inBadRoot(f facts.Facts, rec *record.Record) bool {
	_, bad := rec.Bad[f.Root]
	return bad && !slices.Contains(rec.Good, f.Root) && rec.LastGood() != ""
}

// Stranded reports whether an unattended apply has to bring the host to its last good root when there is nothing
// better. A root that was resumed too often without becoming good is not resumed again.
func Stranded(f facts.Facts, rec *record.Record, w Wish) bool {
	return w.Unattended && (OnHostRoot(f, rec) || inBadRoot(f, rec)) &&
		rec.ResumeAttempts(rec.LastGood()) < record.MaxAttempts
}

// whyStranded returns why a host does not run its last good root.
func whyStranded(f facts.Facts, rec *record.Record) string {
	if inBadRoot(f, rec) {
		return "the running root was " + rec.Bad[f.Root].WhenAndWhy()
	}
	return "a full reboot landed on the host root"
}

// ForwardVerb returns the verb for a switch to a root. After a full reboot, the root that ran before is resumed and
// keeps its /etc; to any other root it is an apply, which makes a new /etc.
func ForwardVerb(f facts.Facts, rec *record.Record, id string) string {
	if f.Root == switcher.HostRoot && rec.LastGood() == id {
		return record.VerbResume
	}
	return record.VerbApply
}

// LeftFor returns why the running root is marked bad when the operator leaves it for another version.
func LeftFor(version string) *record.Bad {
	return &record.Bad{Reason: "left by the operator for version " + version, RolledBack: true}
}

// LeftForOlder is [LeftFor] when the operator applies an older release: otherwise the timer would undo that the next
// night. It returns nil when the release is not older.
func LeftForOlder(older bool, version string) *record.Bad {
	if !older {
		return nil
	}
	return LeftFor(version)
}
