package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// run is main with its edges as arguments; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out := &output{stdout: stdout, stderr: stderr}
	root := newRoot(out)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !out.started {
		err = &usageError{err} // cobra did not get as far as the command
	}
	out.fail(err)
	return exitCode(err)
}

func newRoot(out *output) *cobra.Command {
	root := &cobra.Command{
		Use:   "releasectl",
		Short: "Pack, release, sign, push and inspect images that updatectl runs",
		Long: `releasectl packs a root directory into an image, names images in a release, signs
either and copies it to where hosts fetch it. References are "host/repository:tag" or, for an OCI
layout directory, "oci:DIR:tag". Answers go to stdout, talk to stderr.

Signing keys are made with "cosign generate-key-pair" or
"openssl genpkey -algorithm ed25519"; hosts need the public half.`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if err := out.check(); err != nil {
				return err
			}
			out.started = true
			return nil
		},
	}
	root.SetOut(out.stdout)
	root.SetErr(out.stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringVar(&out.format, "output", "text", "`text|json`: how to answer")
	root.PersistentFlags().BoolVar(&out.quiet, "quiet", false, "no talk, only the answer and errors")
	root.AddCommand(newPack(out), newRelease(out), newLivePatch(out), newSign(out), newPush(out), newInspect(out))
	return root
}

// arguments asks for exactly these and names what is missing.
func arguments(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fmt.Errorf("%s is missing", names[len(args)])
		}
		if len(args) > len(names) {
			return fmt.Errorf("nothing is known to do with %q", args[len(names)])
		}
		return nil
	}
}

// version is what the build says of itself.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
