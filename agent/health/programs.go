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

	"github.com/updatectl/updatectl/verify/printable"
)

// programDirs hold check programs: the image's, and the operator's, which override those of the same name.
var programDirs = []string{"/usr/lib/updatectl/health.d", "/etc/updatectl/health.d"}

// programClasses are the folders in them. What lies in none is required, too.
var programClasses = []struct {
	dir      string
	required bool
}{{"", true}, {"required.d", true}, {"wanted.d", false}}

// program is a check that somebody else wrote.
type program struct {
	name     string // below health.d
	file     string
	required bool
	// broken is why it cannot be run.
	broken string
}

// programs finds the check programs in the order in which they are run: by name, required or not in which folder ever.
func (g Gate) programs() []program {
	found := map[string]program{}
	for _, dir := range programDirs {
		for _, class := range programClasses {
			entries, err := os.ReadDir(filepath.Join(g.Root, dir, class.dir))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				name := filepath.Join(dir, class.dir)
				found[name] = program{name: name, required: class.required, broken: fmt.Sprintf("cannot look for checks: %v", err)}
			}
			for _, e := range entries {
				name := filepath.Join(class.dir, e.Name())
				p := program{name: name, file: filepath.Join(g.Root, dir, name), required: class.required}
				delete(found, name)
				if p.take() {
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

// take tells whether a file is a check. An empty one, or a link to /dev/null, is there to switch off another; hidden
// files and READMEs are for people. What is left and cannot be run must not be passed over in silence.
func (p *program) take() bool {
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
	}
	return true
}

// wanted runs the checks that may fail, once.
func (g Gate) wanted(ctx context.Context, programs []program) []Result {
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

// termGrace is what a check has between SIGTERM and SIGKILL.
const termGrace = 2 * time.Second

// run runs a check, and what it starts in a process group of its own: nothing of it is left behind.
func (g Gate) run(ctx context.Context, p program) Result {
	if p.broken != "" {
		return failf("%s", p.broken)
	}
	if over(ctx) {
		return failf("it was not run: %v", why(ctx))
	}
	mine := fmt.Errorf("it did not end within %v", g.Config.CheckDeadline)
	ctx, cancel := context.WithTimeoutCause(ctx, g.Config.CheckDeadline, mine)
	defer cancel()
	var out tail
	err := execute(ctx, p.file, &out)
	r := Result{Output: safe(out.String())}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.Exited():
		r.Verdict, r.Reason = Fail, fmt.Sprintf("exit code %d", exit.ExitCode())
	case context.Cause(ctx) == mine:
		r.Verdict, r.Reason = Fail, mine.Error()
	case over(ctx):
		r.Verdict, r.Reason = Fail, fmt.Sprintf("it still ran when its time was over: %v", why(ctx))
	default:
		r.Verdict, r.Reason = Fail, err.Error()
	}
	if line := lastLine(r.Output); r.Verdict == Fail && line != "" {
		r.Reason += ": " + line
	}
	return r
}

// execute runs a program to its end, or until the context ends and a moment longer. A process that the kernel does not
// let die is left to itself.
func execute(ctx context.Context, file string, out *tail) error {
	cmd := exec.Command(file)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// What it leaves in the background may hold its output open; what it wrote itself is in the pipe when it ends.
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

// safe escapes what a terminal would obey, line by line.
func safe(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, l := range lines {
		lines[i] = printable.Text(l)
	}
	return strings.Join(lines, "\n")
}

// lastLine is what a program that fails said about it: the last line, cut to what a sentence can bear.
func lastLine(text string) string {
	const most = 200
	text = strings.TrimSpace(text)
	line := []rune(strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:]))
	if len(line) > most {
		return string(line[:most]) + "…"
	}
	return string(line)
}
