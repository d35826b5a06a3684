// Package program finds and runs the programs that operators and images add to the agent, such as health checks and
// hooks. It promises that a program runs as root only if nobody but root can change it, that it ends in time with all
// of its processes, and that its output is bounded.
package program

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

// File is a program in a directory that somebody else writes.
type File struct {
	// Name is its name in the directory, Path the whole. For a directory that cannot be read, both are its path.
	Name, Path string
	// Broken is why it cannot be run, "" when it can.
	Broken string
}

// List returns the programs in some directories, sorted by name. A later directory overrides an earlier one: its file
// replaces the one of the same name, an empty file or a link to /dev/null switches it off. A missing directory is
// empty; one that cannot be read is in the list as a broken program.
func List(dirs ...string) []File {
	found := map[string]File{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			found[dir] = File{Name: dir, Path: dir, Broken: fmt.Sprintf("cannot look for programs: %v", err)}
		}
		for _, e := range entries {
			f := File{Name: e.Name(), Path: filepath.Join(dir, e.Name())}
			delete(found, f.Name)
			if f.isProgram() {
				found[f.Name] = f
			}
		}
	}
	var list []File
	for _, f := range found {
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// isProgram reports whether a file is a program. An empty file, or a link to /dev/null, is none; hidden files and
// READMEs are for people. Any other file that cannot be run is kept as broken: to skip it silently would do without
// what the operator wanted.
func (f *File) isProgram() bool {
	if strings.HasPrefix(f.Name, ".") || strings.HasPrefix(f.Name, "README") {
		return false
	}
	st, err := os.Stat(f.Path)
	switch {
	case err != nil:
		f.Broken = fmt.Sprintf("it cannot be read: %v", err)
	case !st.Mode().IsRegular() || st.Size() == 0:
		return false
	case st.Mode()&0o111 == 0:
		f.Broken = "it is not executable"
	default:
		if err := owned.Check(f.Path); err != nil {
			f.Broken = fmt.Sprintf("it is not run as root: %v", err)
		}
	}
	return true
}

// TermGrace is how long a program has between SIGTERM and SIGKILL.
const TermGrace = 2 * time.Second

// Execute runs a program until it ends, or until the context ends and [TermGrace] after that, and returns the end of
// its output. The variables are added to its environment. It runs in a process group of its own, which is killed
// afterwards, so that no process is left behind, except one that not even SIGKILL ends. When the context ended first,
// the error is its cause.
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
		case <-time.After(TermGrace):
			syscall.Kill(group, syscall.SIGKILL)
		}
	}
	return context.Cause(ctx)
}

// KeptOutput is how much of the end of a program's output is kept, in bytes: a screenful.
const KeptOutput = 4 << 10

// EscapeLines escapes, line by line, what a terminal would obey.
func EscapeLines(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, l := range lines {
		lines[i] = printable.Text(l)
	}
	return strings.Join(lines, "\n")
}

// LastLine returns the last line of an output, in which a program that fails says why, cut to 200 characters.
func LastLine(text string) string {
	const most = 200
	text = strings.TrimSpace(text)
	line := []rune(strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:]))
	if len(line) > most {
		return string(line[:most]) + "…"
	}
	return string(line)
}
