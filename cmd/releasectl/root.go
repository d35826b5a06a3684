package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updatectl/updatectl/verify/printable"
)

// errInterrupted is what ends a command after SIGINT or SIGTERM. Tags move last, and what was copied is not copied
// again.
var errInterrupted = errors.New("interrupted; run the same command again to finish it")

// run is main with its edges as arguments; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	out := &output{stdout: stdout, stderr: stderr}
	root := newRoot(out)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		err = errInterrupted
	case err != nil && !out.started:
		err = &usageError{err} // cobra did not get as far as the command
	}
	out.fail(err)
	return exitCode(err)
}

func newRoot(out *output) *cobra.Command {
	root := &cobra.Command{
		Use:   "releasectl",
		Short: "Pack, release, sign, push and inspect images that updatectl runs",
		Long: `releasectl packs a root directory into an image, lists images in a release,
signs either, and copies it to where hosts fetch it.

A REFERENCE is host/repository:TAG, or oci:DIR:TAG for an OCI layout directory.
Answers go to stdout, progress and warnings to stderr.

A signing key is made with "cosign generate-key-pair" or with
"openssl genpkey -algorithm ed25519"; hosts need its public half.`,
		Args:          knownCommand,
		Version:       buildVersion(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if err := out.check(); err != nil {
				return err
			}
			out.started = true
			return nil
		},
		SuggestionsMinimumDistance: maxTypo,
	}
	root.SetOut(out.stdout)
	root.SetErr(out.stderr)
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetUsageTemplate(usageTemplate(root))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringVar(&out.format, "output", "text", "`FORMAT` of the answer: text or json")
	root.PersistentFlags().BoolVar(&out.quiet, "quiet", false, "print the answer and errors only")
	root.AddCommand(newPack(out), newRelease(out), newLivePatch(out), newSign(out), newPush(out), newInspect(out),
		newVersion(out))
	return root
}

// usageTemplate is cobra's own, made to fit the terminal.
func usageTemplate(c *cobra.Command) string {
	return strings.NewReplacer(
		".FlagUsages ", fmt.Sprintf(".FlagUsagesWrapped %d ", printable.Columns),
		`Use "{{.CommandPath}} [command] --help" for more information about a command.`,
		`"{{.CommandPath}} COMMAND --help" shows more.`,
		"[command]", "COMMAND",
		"{{if .Runnable}}", "{{if not .HasAvailableSubCommands}}", // those only show their help
	).Replace(c.UsageTemplate())
}

// newGroup makes a command that only has others below it.
func newGroup(c *cobra.Command, below ...*cobra.Command) *cobra.Command {
	c.Args = knownCommand
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.SuggestionsMinimumDistance = maxTypo
	c.AddCommand(below...)
	return c
}

// maxTypo is how many letters of a command may be wrong for it to be suggested.
const maxTypo = 2

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

// arguments asks for exactly these and names what is missing.
func arguments(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fmt.Errorf("%s is missing", names[len(args)])
		}
		if len(args) > len(names) {
			return fmt.Errorf("unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// required asks for flags that have no useful default.
func required(c *cobra.Command, names ...string) error {
	for _, name := range names {
		if !c.Flags().Changed(name) {
			return &usageError{fmt.Errorf("--%s is missing", name)}
		}
	}
	return nil
}

// flagError says what is wrong with a flag without the words of the library.
func flagError(err error) error {
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
		kind := map[string]string{"bool": "neither true nor false", "int": "not a whole number",
			"int64": "not a whole number"}[invalid.GetFlag().Value.Type()]
		if kind == "" {
			return fmt.Errorf("cannot read --%s: %w", invalid.GetFlag().Name, errors.Unwrap(invalid))
		}
		return fmt.Errorf("--%s is %q: it is %s", invalid.GetFlag().Name, invalid.GetValue(), kind)
	}
	return err
}
