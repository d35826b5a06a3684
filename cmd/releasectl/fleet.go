package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/releasectl/fleet"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/verify/printable"
)

// maxHosts bounds the hosts of a fleet: ten times what docs/scale.md is about.
const maxHosts = 1_000_000

// answerFile ends the names of files in a directory that are answers.
const answerFile = ".json"

func newFleet(out *output) *cobra.Command {
	return &cobra.Command{
		Use:   "fleet [flags] [PATH]...",
		Short: "Show which hosts run what, which failed, and what others wait for",
		Long: `Show which hosts of a fleet run what, which failed and why, and what others wait
for. It asks no host: it reads what "updatectl status --output json" printed on
each.

PATH is a file with one answer, and its name without .json is that of the host;
or a directory with such files, which end in .json. Without PATH, standard input
has one answer in each line, with the name in a member "host" that was added. An
empty answer counts as none.`,
		Example: `  releasectl fleet state/
  ssh web1 updatectl status --output json >state/web1.json
  ssh web1 updatectl status --output json | jq -c '. + {host: "web1"}' |
    releasectl fleet`,
		RunE: func(c *cobra.Command, args []string) error {
			answers, err := readAnswers(args, c.InOrStdin())
			if err != nil {
				return &usageError{err}
			}
			s := fleet.Summarise(answers)
			return out.answer("fleet", s, func(w io.Writer) { printFleet(w, s) })
		},
	}
}

// readAnswers returns the answers at the paths, or those in stdin without one. No host is there twice.
func readAnswers(paths []string, stdin io.Reader) (answers []fleet.Answer, err error) {
	if len(paths) == 0 {
		answers, err = readLines(stdin)
	}
	for _, path := range paths {
		files := []string{path}
		if info, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("cannot read the answers: %w", err)
		} else if info.IsDir() {
			if files, err = filesIn(path); err != nil {
				return nil, err
			}
		}
		for _, file := range files {
			answers = append(answers, readFile(file))
		}
	}
	switch {
	case err != nil:
		return nil, err
	case len(answers) == 0:
		return nil, errors.New("there are no answers of hosts")
	case len(answers) > maxHosts:
		return nil, fmt.Errorf("there are answers of more than %d hosts", maxHosts)
	}
	seen := map[string]bool{}
	for _, a := range answers {
		if seen[a.Host] {
			return nil, fmt.Errorf("there are two answers of the host %q", a.Host)
		}
		seen[a.Host] = true
	}
	return answers, nil
}

// filesIn returns the files of answers in a directory.
func filesIn(dir string) (files []string, err error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the answers: %w", err)
	}
	for _, f := range all {
		path := filepath.Join(dir, f.Name())
		if st, err := os.Stat(path); strings.HasSuffix(path, answerFile) && err == nil && st.Mode().IsRegular() {
			files = append(files, path) // a pipe may not end
		}
	}
	return files, nil
}

// readFile returns the answer in a file.
func readFile(path string) fleet.Answer {
	host := strings.TrimSuffix(filepath.Base(path), answerFile)
	f, err := os.Open(path)
	if err != nil {
		return fleet.Unreadable(host, err.Error())
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, fleet.MaxAnswer+1))
	if err != nil {
		return fleet.Unreadable(host, err.Error())
	}
	return fleet.Read(host, text)
}

// readLines returns the answers that stand in one line each.
func readLines(r io.Reader) (answers []fleet.Answer, err error) {
	lines := bufio.NewReader(r)
	for n := 1; err == nil; n++ {
		var line []byte
		if line, err = nextLine(lines); err != nil && err != io.EOF {
			return nil, fmt.Errorf("cannot read standard input: %w", err)
		}
		if len(line) == 0 {
			continue
		}
		a := fleet.Read("", line)
		a.Host = cmp.Or(a.Host, fmt.Sprintf("(line %d)", n))
		if answers = append(answers, a); len(answers) > maxHosts {
			break
		}
	}
	return answers, nil
}

// nextLine returns the next line. Of one that is longer than an answer may be, it returns as much as shows that.
func nextLine(r *bufio.Reader) (line []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(line) <= fleet.MaxAnswer {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return []byte(strings.TrimSpace(string(line))), err
		}
	}
}

func printFleet(w io.Writer, s fleet.Summary) {
	line := lines(w)
	fmt.Fprintln(w, usage.Count(s.Hosts, "host", "hosts"))
	name := "runs"
	for _, v := range s.Versions {
		// Escaped before it is broken into lines: what is escaped is longer, and a line break would begin another one.
		line(name, printable.Text(fmt.Sprintf("%s: %s: %s", versionText(v), usage.Count(v.Count, "host", "hosts"),
			strings.Join(v.Hosts, " "))))
		name = "" // of the first only
	}
	findings(line, "failed", s.Failed)
	findings(line, "waiting", s.Waiting)
	findings(line, "silent", s.Silent)
}

// versionText returns what hosts run. Two images may have one version, so the root is there, too.
func versionText(v fleet.Version) string {
	root := v.Root
	if hex, is := strings.CutPrefix(root, "sha256-"); is && len(hex) > 12 {
		root = "sha256-" + hex[:12]
	}
	if v.Version == "" {
		return root
	}
	return v.Version + " (" + root + ")"
}

func findings(line func(name, value string), name string, list []fleet.Finding) {
	for _, f := range list {
		text := f.Host + ": " + f.Reason
		if !f.Until.IsZero() {
			text += " until " + f.Until.Format(time.RFC3339)
		}
		if f.Text != "" {
			text += ": " + strings.Join(strings.Fields(f.Text), " ")
		}
		line(name, printable.Text(text))
		name = "" // of the first only
	}
}
