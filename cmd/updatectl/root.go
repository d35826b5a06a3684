package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent"
)

// cli is what the flags that every command has come to, and where the answer goes.
type cli struct {
	configFile string
	root       string
	output     string
	quiet      bool
	verbose    bool
	progressFD int

	stdout, stderr io.Writer
	log            *zap.Logger
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &cli{stdout: stdout, stderr: stderr, log: zap.NewNop()}
	cmd := c.command()
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	code := exitCode(err)
	if err != nil && !isAnswer(err) {
		c.complain(err)
	}
	return code
}

func (c *cli) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "updatectl",
		Short: "Keep this host on a signed image, and move it to the next one without rebooting the kernel",
		Long: `updatectl keeps a Linux host on a signed operating system image. "updatectl apply" fetches the next image,
verifies it, stages it beside the running one and moves userspace into it by systemd's soft reboot,
while the kernel keeps running. "updatectl rollback" goes back.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          args(cobra.NoArgs),
		Version:       buildVersion(),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return c.prepare()
		},
	}
	f := cmd.PersistentFlags()
	f.StringVar(&c.configFile, "config", "", "read this configuration `FILE` and no other")
	f.StringVar(&c.root, "root", "/", "work on the tree below `DIR` instead of the running host")
	f.StringVar(&c.output, "output", "text", "print the answer as `FORMAT`: text or json")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "print the answer only, no progress and no talk")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "say what is done, step by step")
	f.IntVar(&c.progressFD, "progress-fd", -1, "write progress as JSON lines to the open file descriptor `N`")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.AddGroup(&cobra.Group{ID: "update", Title: "Update:"}, &cobra.Group{ID: "look", Title: "Look:"}, &cobra.Group{ID: "keep", Title: "Keep house:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, sub := range commands {
			sub.GroupID = group
			cmd.AddCommand(sub)
		}
	}
	add("update", checkCommand(c), planCommand(c), stageCommand(c), applyCommand(c), rollbackCommand(c), livepatchCommand(c), confirmCommand(c))
	add("look", statusCommand(c), historyCommand(c), verifyCommand(c), configCommand(c))
	add("keep", gcCommand(c), pinCommand(c), unpinCommand(c))
	cmd.AddCommand(agentCommand(c), versionCommand(c))
	return cmd
}

// prepare checks the common flags before any command runs.
func (c *cli) prepare() error {
	if c.output != "text" && c.output != "json" {
		return usageError{fmt.Errorf("cannot print as %q: --output is text or json", c.output)}
	}
	root, err := filepath.Abs(c.root)
	if err != nil {
		return usageError{err}
	}
	if st, err := os.Stat(root); err != nil || !st.IsDir() {
		return usageError{fmt.Errorf("cannot work on %s: it is no directory", root)}
	}
	c.root = root
	c.log = newLogger(c.stderr, c.quiet, c.verbose)
	return nil
}

// agent makes the agent that a command works with.
func (c *cli) agent() (*agent.Agent, error) { return agent.New(c.root, c.configFile, c.log) }

// anyway makes the agent for a command that has to do its work whatever the configuration says.
func (c *cli) anyway() (*agent.Agent, error) { return agent.NewAnyway(c.root, c.configFile, c.log) }

// usageError is a mistake on the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// args turns cobra's complaint about arguments into a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return usageError{err}
		}
		return nil
	}
}

func isUsage(err error) bool {
	var u usageError
	return errors.As(err, &u)
}
