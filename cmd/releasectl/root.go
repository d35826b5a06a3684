package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/usage"
)

// errInterrupted is what ends a command after a signal. Tags move last, and what was copied is not copied
// again.
var errInterrupted = errors.New("interrupted; run the same command again to finish it")

// run is main with its edges as arguments; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), usage.Signals()...)
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
		Version:       usage.Version(version),
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(usage.NotEmpty(cmd), out.check()); err != nil {
				return err
			}
			out.started = true
			return nil
		},
	}
	root.SetOut(out.stdout)
	root.SetErr(out.stderr)
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetUsageTemplate(usage.Template(root))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage.FlagError(err) })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.Flags().Bool("version", false, "version for releasectl") // without -v, which is --verbose of updatectl
	root.PersistentFlags().StringVar(&out.format, "output", "text", "`FORMAT` of the answer: text or json")
	root.PersistentFlags().BoolVarP(&out.quiet, "quiet", "q", false, "print the answer and errors only")
	usage.Group(root, newPack(out), newRelease(out), newLivePatch(out), newSign(out), newPush(out), newInspect(out),
		newFleet(out), newVersion(out))
	return root
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
