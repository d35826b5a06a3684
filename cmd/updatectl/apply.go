package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
)

func applyCommand(c *cli) *cobra.Command {
	var o agent.ApplyOptions
	var wish string
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Bring this host to the published image",
		Long: `Bring this host to the published image: fetch, verify, stage, switch.

The switch restarts userspace and ends this session. The kernel keeps running,
unless the level is full. In the new root, the host confirms that it arrived
and is healthy, or rolls back ("updatectl status" shows which). If anything
fails before services stop, the host stays in its root.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wish != "" {
				var err error
				if o.Level, err = level.ParseLevel(wish); err != nil {
					return usageError{fmt.Errorf("--level: %w", err), cmd.CommandPath()}
				}
			}
			done, err := c.followed(func(a *agent.Agent) (agent.Applied, error) { return a.Apply(cmd.Context(), o) })
			if err != nil {
				return adviseAccept(adviseRetry(err, o), o)
			}
			return c.print("apply", done, func(w io.Writer) { appliedText(w, done) })
		},
	}
	f := cmd.Flags()
	fromFlag(f, &o.From, "take the image")
	f.StringVar(&wish, "level", "", "`LEVEL` of the switch: auto, soft or full (default: as configured)")
	waitFlag(f, &o.Wait)
	f.BoolVar(&o.Retry, "retry", false, "take an image that was given up")
	acceptLosses(f, &o)
	allowDowngrade(f, &o)
	f.BoolVar(&o.Unattended, "unattended", false,
		"for timers: leave an image that was given up alone, and resume the last good root after a full reboot")
	return cmd
}

// detail returns more about a root for the middle of a sentence, "" when the value is not known.
func detail(what, value string) string {
	if value == "" {
		return ""
	}
	return ", " + what + " " + value
}

// etcOf returns a pattern for the shell that names the /etc of a root that does not run.
func etcOf(root string) string {
	if root == switcher.HostRoot {
		return roots.HostMount + "/etc"
	}
	return record.StateDir + "/roots/" + short(root) + "*/etc"
}

func appliedText(w io.Writer, d agent.Applied) {
	switch {
	case d.Skipped != "" && d.Root == d.From:
		fmt.Fprintf(w, "Nothing was done: %s.\n", d.Skipped)
		return
	case d.Skipped != "":
		fmt.Fprintf(w, "%s%s was left alone: %s.\n", short(d.Root), detail("version", d.Version), d.Skipped)
		return
	case d.Restarting:
		fmt.Fprintf(w, "Level\t%s\n", d.Level)
		fmt.Fprintf(w, "Restarting: services stop now and come back in the same root, "+
			"where the live patch is loaded before they start.\n")
		return
	case !d.Switching && len(d.Loaded) > 0:
		fmt.Fprintf(w, "Level\t%s: nothing was restarted\n", d.Level)
		for _, p := range d.LivePatches {
			if slices.Contains(d.Loaded, p.Name) {
				fmt.Fprintf(w, "Live patch\t%s\n", strings.Replace(livePatchText(p), "\t", "  ", 1))
			}
		}
		return
	case !d.Switching:
		fmt.Fprintf(w, "Nothing to do: %s runs already%s%s.\n", short(d.Root),
			detail("version", d.Version), detail("signed by", signedBy(d.Vouchers)))
		return
	}
	if d.Reference != "" {
		fmt.Fprintf(w, "Image\t%s\n", d.Reference)
	}
	fmt.Fprintf(w, "Root\t%s -> %s\n", short(d.From), short(d.Root))
	if d.Version != "" {
		fmt.Fprintf(w, "Version\t%s\n", d.Version)
	}
	releaseText(w, "", d.Release)
	if len(d.Vouchers) > 0 {
		fmt.Fprintf(w, "Signed by\t%s\n", signedBy(d.Vouchers))
	}
	if d.NewBytes > 0 {
		fmt.Fprintf(w, "New on disk\t%s\n", usage.Size(d.NewBytes))
	}
	if d.Decision != nil {
		decisionText(w, *d.Decision)
	}
	for _, name := range d.Loaded {
		fmt.Fprintf(w, "Live patch\t%s is effective\n", name)
	}
	if d.Reference == "" { // a rollback
		fmt.Fprintf(w, "/etc\tas it was in %s, with the current users; later changes stay in %s\n",
			short(d.Root), etcOf(d.From))
		leftText(w, d)
	}
	if d.Decision != nil && d.Decision.Level == level.Full {
		fmt.Fprintf(w, "Rebooting: a full reboot lands on the host root, and the host continues from there "+
			"into the new root. `updatectl status` shows how it went.\n")
		return
	}
	fmt.Fprintf(w, "Switching: services stop now and come back in the new root. "+
		"`updatectl status` shows how it went.\n")
}
