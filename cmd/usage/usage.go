// Package usage is what both programs have in common on the command line: mistakes are named in the words of the person
// who made them, help pages fit a terminal, and an answer in JSON is one document with a schema.
package usage

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updatectl/updatectl/verify/printable"
)

// maxTypo is how many letters of a command may be wrong for it to be suggested.
const maxTypo = 2

// Template returns cobra's own usage template of a command, made to fit the terminal.
func Template(c *cobra.Command) string {
	return strings.NewReplacer(
		".FlagUsages ", fmt.Sprintf(".FlagUsagesWrapped %d ", printable.Columns),
		`Use "{{.CommandPath}} [command] --help" for more information about a command.`,
		`"{{.CommandPath}} COMMAND --help" shows more.`,
		"[command]", "COMMAND",
		"{{if .Runnable}}", "{{if not .HasAvailableSubCommands}}", // those only show their help
	).Replace(c.UsageTemplate())
}

// Group makes c a command that only has others below it: it shows its help, and knows the names of the others.
func Group(c *cobra.Command, below ...*cobra.Command) *cobra.Command {
	c.Args = knownCommand
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.SuggestionsMinimumDistance = maxTypo
	c.AddCommand(below...)
	return c
}

// knownCommand refuses what is none of the commands below c.
func knownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	meant := ""
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		meant = fmt.Sprintf(": did you mean %q?", near[0])
	}
	return fmt.Errorf("unknown command %q%s", args[0], meant)
}

// Arguments accepts as many arguments as there are names, and names the one that is missing. A name that begins with
// "[" need not be given.
func Arguments(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return fmt.Errorf("unexpected argument %q", args[len(names)])
		}
		for _, name := range names[len(args):] {
			if !strings.HasPrefix(name, "[") {
				return fmt.Errorf("%s is missing", name)
			}
		}
		return nil
	}
}

// FlagError says what is wrong with a flag, without the words of the library.
func FlagError(err error) error {
	var unknown *pflag.NotExistError
	var empty *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return fmt.Errorf("unknown flag -%s", unknown.GetSpecifiedName())
	case errors.As(err, &unknown):
		return fmt.Errorf("unknown flag --%s", unknown.GetSpecifiedName())
	case errors.As(err, &empty):
		return fmt.Errorf("--%s needs a value", empty.GetFlag().Name)
	case errors.As(err, &invalid):
		flag := invalid.GetFlag()
		kinds := map[string]string{
			"bool": "neither true nor false", "int": "not a whole number", "int64": "not a whole number",
		}
		if kind := kinds[flag.Value.Type()]; kind != "" {
			return fmt.Errorf("--%s is %q: it is %s", flag.Name, invalid.GetValue(), kind)
		}
		return fmt.Errorf("cannot read --%s: %w", flag.Name, errors.Unwrap(invalid))
	}
	return err
}

// NotEmpty returns an error that names a flag which was given without a value, as by a script whose variable is not
// set: taken for a flag that was not given, `--root "$TREE"` would work on the running host.
func NotEmpty(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.Type() == "string" && f.Value.String() == "" {
			err = fmt.Errorf("--%s is empty", f.Name)
		}
	})
	return err
}

// Signals returns the signals that cancel a command. nohup(1) ignores SIGHUP; otherwise, a lost session cancels, too.
func Signals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// Version returns the version of a program: the one that its build set, or that of its module, which `go install`
// knows.
func Version(set string) string {
	if info, ok := debug.ReadBuildInfo(); ok && set == "" {
		return info.Main.Version
	}
	return set
}
