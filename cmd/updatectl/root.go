package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/cmd/usage"
)

// cli holds the flags that every command has, and where the answer goes.
type cli struct {
	configFile string
	root       string
	output     string
	quiet      bool
	verbose    bool
	progressFD int

	stdout, stderr io.Writer
	log            *zap.Logger
	// unbroken: the journal reads this, where a sentence is one line however long it is.
	unbroken bool
	// started: the command itself runs. What fails before that is a mistake on the command line.
	started bool
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &cli{stdout: stdout, stderr: stderr, log: zap.NewNop(), unbroken: inJournal(stderr)}
	root := newRoot(c)
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	switch {
	case err != nil && !c.started:
		err = usageError{err, command.CommandPath()}
	case err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) && !hasOutcome(err):
		err = interruptionOf(command.CommandPath())
	}
	if err != nil && !isAnswer(err) {
		c.complain(err)
	}
	return exitCode(err)
}

func newRoot(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "updatectl",
		Short: "Keep this host on a signed image, and update it without a full reboot",
		Long: `updatectl keeps a Linux host on a signed operating system image.
"updatectl apply" fetches the next image, verifies it, stages it beside the
running one, and moves userspace into it by systemd's soft reboot, while the
kernel keeps running. "updatectl rollback" returns to the root before.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       usage.Version(version),
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := usage.NotEmpty(cmd); err != nil {
				return err
			}
			c.started = true
			return c.prepare()
		},
	}
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetUsageTemplate(usage.Template(root))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage.FlagError(err) })
	root.CompletionOptions.HiddenDefaultCmd = true
	f := root.PersistentFlags()
	f.StringVar(&c.configFile, "config", "", "read this configuration `FILE` and no other")
	f.StringVar(&c.root, "root", "/", "work on the tree below `DIR` instead of the running host")
	f.StringVar(&c.output, "output", "text", "`FORMAT` of the answer: text or json")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "print the answer and errors only")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "report each step")
	f.IntVar(&c.progressFD, "progress-fd", -1, "write progress as JSON lines to the open file descriptor `N`")
	root.AddGroup(
		&cobra.Group{ID: "update", Title: "Update:"},
		&cobra.Group{ID: "look", Title: "Look:"},
		&cobra.Group{ID: "maintenance", Title: "Maintenance:"},
	)
	inGroup := func(group string, commands ...*cobra.Command) []*cobra.Command {
		for _, sub := range commands {
			sub.GroupID = group
		}
		return commands
	}
	return usage.Group(root, slices.Concat(
		inGroup("update", checkCommand(c), planCommand(c), adoptCommand(c), stageCommand(c), applyCommand(c),
			rollbackCommand(c), switchCommand(c), livepatchCommand(c), confirmCommand(c)),
		inGroup("look", statusCommand(c), rootsCommand(c), historyCommand(c), analyzeCommand(c), metricsCommand(c),
			verifyCommand(c), configCommand(c), etcCommand(c)),
		inGroup("maintenance", pauseCommand(c), unpauseCommand(c), slotCommand(c), gcCommand(c), fsckCommand(c),
			pinCommand(c), unpinCommand(c), hostRootCommand(c)),
		[]*cobra.Command{agentCommand(c), versionCommand(c)},
	)...)
}

// prepare checks the flags that every command has.
func (c *cli) prepare() error {
	if c.output != "text" && c.output != "json" {
		return usageError{err: fmt.Errorf("--output is %q: use text or json", c.output)}
	}
	root, err := filepath.Abs(c.root)
	if err != nil {
		return usageError{err: err}
	}
	if st, err := os.Stat(root); err != nil || !st.IsDir() {
		return usageError{err: fmt.Errorf("cannot work on %s: it is not a directory", root)}
	}
	c.root = root
	c.log = newLogger(c.stderr, c.root == "/", c.unbroken, c.quiet, c.verbose)
	return nil
}

// agent returns the agent that a command works with.
func (c *cli) agent() (*agent.Agent, error) { return agent.New(c.root, c.configFile, c.log) }

// anyway returns the agent for a command that has to work with an invalid configuration, too.
func (c *cli) anyway() (*agent.Agent, error) { return agent.NewAnyway(c.root, c.configFile, c.log) }

// running is anyway for a command that needs the running host.
func (c *cli) running() (*agent.Agent, error) {
	a, err := c.anyway()
	if err != nil {
		return nil, err
	}
	return a, a.RequireRunning()
}

// usageError is a mistake on the command line of a command, which is "" for any.
type usageError struct {
	err     error
	command string
}

func (u usageError) Error() string { return u.err.Error() }
func (u usageError) Unwrap() error { return u.err }
