package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/updatectl/updatectl/owned"
	"github.com/updatectl/updatectl/verify/printable"
)

// programDirs hold check programs: the image's first, then the operator's, which override the image's of the same name.
var programDirs = []string{"/usr/lib/updatectl/health.d", operatorPrograms}

const operatorPrograms = "/etc/updatectl/health.d"

// programClasses are the directories in them. A program that is in none of these is required, too.
var programClasses = []struct {
	dir      string
	required bool
}{{"", true}, {"required.d", true}, {"wanted.d", false}}

// program is a check that somebody else wrote.
type program struct {
	name     string // below health.d
	file     string
	required bool
	// broken is why it cannot be run, "" when it can.
	broken string
}

// programsBelow returns the check programs of a root in the order in which they run: by name, whichever directory they
// are in. A directory that cannot be read is in the list as a broken program.
func programsBelow(root string) []program {
	found := map[string]program{}
	for _, dir := range programDirs {
		for _, class := range programClasses {
			entries, err := os.ReadDir(filepath.Join(root, dir, class.dir))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				name := filepath.Join(dir, class.dir)
				found[name] = program{name: name, required: class.required,
					broken: fmt.Sprintf("cannot look for checks: %v", err)}
			}
			for _, e := range entries {
				name := filepath.Join(class.dir, e.Name())
				p := program{name: name, file: filepath.Join(root, dir, name), required: class.required}
				delete(found, name)
				if p.isCheck() {
					found[name] = p
				}
			}
		}
	}
	var list []program
	for _, p := range found {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b program) int {
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

// isCheck reports whether a file is a check. An empty file, or a link to /dev/null, switches off the one it overrides;
// hidden files and READMEs are for people. Any other file that cannot be run is kept as broken: to skip it silently
// would make a root good that was never checked.
func (p *program) isCheck() bool {
	if base := filepath.Base(p.name); strings.HasPrefix(base, ".") || strings.HasPrefix(base, "README") {
		return false
	}
	st, err := os.Stat(p.file)
	switch {
	case err != nil:
		p.broken = fmt.Sprintf("it cannot be read: %v", err)
	case !st.Mode().IsRegular() || st.Size() == 0:
		return false
	case st.Mode()&0o111 == 0:
		p.broken = "it is not executable"
	default:
		if err := owned.Check(p.file); err != nil {
			p.broken = fmt.Sprintf("it is not run as root: %v", err)
		}
	}
	return true
}

// runWanted runs the checks that may fail, once. A failure is only a warning.
func (g Gate) runWanted(ctx context.Context, programs []program) []Result {
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

// termGrace is how long a check has between SIGTERM and SIGKILL.
const termGrace = 2 * time.Second

// run runs a check in a process group of its own and kills that group afterwards, so that no process is left behind.
func (g Gate) run(ctx context.Context, p program) Result {
	if p.broken != "" {
		return failf("%s", p.broken)
	}
	if timeIsUp(ctx) {
		return failf("it was not run: %v", whyTimeIsUp(ctx))
	}
	ownDeadline := fmt.Errorf("it did not end within %v", g.Config.CheckDeadline)
	ctx, cancel := context.WithTimeoutCause(ctx, g.Config.CheckDeadline, ownDeadline)
	defer cancel()
	out, err := Execute(ctx, []string{p.file})
	r := Result{Output: escapeLines(out)}
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
	if line := lastLine(r.Output); r.Verdict == Fail && line != "" {
		r.Reason += ": " + line
	}
	return r
}

// Execute runs a program until it ends, or until the context ends and termGrace after that, and returns the end of its
// output. The variables are added to its environment. A process that not even SIGKILL ends is left behind.
func Execute(ctx context.Context, argv []string, variables ...string) (output string, err error) {
	var out tail
	err = execute(ctx, argv, variables, &out)
	return out.String(), err
}

func execute(ctx context.Context, argv, variables []string, out *tail) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(cmd.Environ(), variables...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A background process of it may hold its output open; what the program itself wrote is in the pipe when it ends.
	cmd.WaitDelay = 250 * time.Millisecond
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("it cannot be run: %w", cmp.Or(errors.Unwrap(err), err))
	}
	group := -cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer syscall.Kill(group, syscall.SIGKILL)
	select {
	case err := <-ended:
		if errors.Is(err, exec.ErrWaitDelay) {
			err = nil
		}
		return err
	case <-ctx.Done():
	}
	syscall.Kill(group, syscall.SIGTERM)
	for range 2 {
		select {
		case <-ended:
			return context.Cause(ctx)
		case <-time.After(termGrace):
			syscall.Kill(group, syscall.SIGKILL)
		}
	}
	return context.Cause(ctx)
}

// keptOutput is how much of the end of a check's output is kept: a screenful.
const keptOutput = 4 << 10

// escapeLines escapes, line by line, what a terminal would obey.
func escapeLines(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, l := range lines {
		lines[i] = printable.Text(l)
	}
	return strings.Join(lines, "\n")
}

// lastLine returns the last line of an output, in which a program that fails says why, cut to 200 characters.
func lastLine(text string) string {
	const most = 200
	text = strings.TrimSpace(text)
	line := []rune(strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:]))
	if len(line) > most {
		return string(line[:most]) + "…"
	}
	return string(line)
}
