package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/agent/program"
)

// programDirs hold check programs: the image's first, then the operator's, which override the image's of the same name.
var programDirs = []string{"/usr/lib/updatectl/health.d", operatorPrograms}

const operatorPrograms = "/etc/updatectl/health.d"

// programClasses are the directories in them. A program that is in none of these is required, too.
var programClasses = []struct {
	dir      string
	required bool
}{{"", true}, {"required.d", true}, {"wanted.d", false}}

// check is a check that somebody else wrote.
type check struct {
	name     string // below health.d
	file     string
	required bool
	// broken is why it cannot be run, "" when it can.
	broken string
}

// programsBelow returns the check programs of a root in the order in which they run: by name, whichever directory they
// are in. A directory that cannot be read is in the list as a broken check.
func programsBelow(root string) []check {
	var list []check
	for _, class := range programClasses {
		var dirs []string
		for _, dir := range programDirs {
			dirs = append(dirs, filepath.Join(root, dir, class.dir))
		}
		for _, f := range program.List(dirs...) {
			name := filepath.Join(class.dir, f.Name)
			if f.Name == f.Path { // a directory
				name = f.Name
			}
			list = append(list, check{name: name, file: f.Path, required: class.required, broken: f.Broken})
		}
	}
	slices.SortFunc(list, func(a, b check) int {
		return cmp.Or(cmp.Compare(filepath.Base(a.name), filepath.Base(b.name)), cmp.Compare(a.name, b.name))
	})
	return list
}

// Unusable returns the required checks of the operator that cannot be run, each with the reason: every root that has
// them would be unhealthy.
func Unusable(root string) []string {
	var list []string
	for _, p := range programsBelow(root) {
		if p.required && p.broken != "" && strings.HasPrefix(p.file, filepath.Join(root, operatorPrograms)+"/") {
			list = append(list, fmt.Sprintf("%s: %s", p.file, p.broken))
		}
	}
	return list
}

// runWanted runs the checks that may fail, once. A failure is only a warning.
func (g Gate) runWanted(ctx context.Context, programs []check) []Result {
	var results []Result
	for _, p := range programs {
		if p.required {
			continue
		}
		r := g.timed(p.name, KindCheck, func() Result { return g.run(ctx, p) })
		if r.Verdict == Fail {
			r.Verdict = Warn
		}
		results = append(results, r)
	}
	return results
}

// run runs a check in a process group of its own and kills that group afterwards, so that no process is left behind.
func (g Gate) run(ctx context.Context, p check) Result {
	if p.broken != "" {
		return failf("%s", p.broken)
	}
	if timeIsUp(ctx) {
		return failf("it was not run: %v", whyTimeIsUp(ctx))
	}
	ownDeadline := fmt.Errorf("it did not end within %v", g.Config.CheckDeadline)
	ctx, cancel := context.WithTimeoutCause(ctx, g.Config.CheckDeadline, ownDeadline)
	defer cancel()
	out, err := program.Execute(ctx, []string{p.file})
	r := Result{Output: program.EscapeLines(out)}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.Exited():
		r.Verdict, r.Reason = Fail, fmt.Sprintf("exit code %d", exit.ExitCode())
	case context.Cause(ctx) == ownDeadline:
		r.Verdict, r.Reason = Fail, ownDeadline.Error()
	case timeIsUp(ctx):
		r.Verdict, r.Reason = Fail, fmt.Sprintf("it was still running: %v", whyTimeIsUp(ctx))
	default:
		r.Verdict, r.Reason = Fail, err.Error()
	}
	if line := program.LastLine(r.Output); r.Verdict == Fail && line != "" {
		r.Reason += ": " + line
	}
	return r
}
