package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/switcher/level"
)

func applyCommand(c *cli) *cobra.Command {
	var o agent.ApplyOptions
	var wish string
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Bring this host to the published image: fetch, verify, stage, switch",
		Long: `Bring this host to the published image: fetch, verify, stage, switch.
The switch restarts userspace and ends this session; the kernel keeps running, unless the level is full. In the new root
the host proves that it arrived ("updatectl status"). If anything fails before services stop, the host stays as it is.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wish != "" {
				var err error
				if o.Level, err = level.ParseLevel(wish); err != nil {
					return usageError{err}
				}
			}
			done, err := c.followed(func(a *agent.Agent) (agent.Applied, error) { return a.Apply(cmd.Context(), o) })
			if err != nil {
				return err
			}
			return c.print("apply", done, func(w io.Writer) { appliedText(w, done) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.From, "from", "", "take the image `REF` instead of the configured source")
	f.StringVar(&wish, "level", "", "how to switch, as `LEVEL`: auto, soft or full (default from the configuration)")
	f.BoolVar(&o.Wait, "wait", false, "wait for another updatectl that is at work")
	f.BoolVar(&o.Retry, "retry", false, "take an image that was given up before")
	allowDowngrade(f, &o)
	f.BoolVar(&o.Unattended, "unattended", false, "for timers: pass over an image that was given up before, and after a boot of the kernel go on to the last good root")
	return cmd
}

// allowDowngrade adds the flag that waives the order of releases.
func allowDowngrade(f *pflag.FlagSet, o *agent.ApplyOptions) {
	f.BoolVar(&o.AllowDowngrade, "allow-downgrade", false, "take what is older than what was accepted before, and begin from there; it must be signed and not expired")
}

// known goes on with what is known of a root, "" when that is nothing.
func known(what, value string) string {
	if value == "" {
		return ""
	}
	return ", " + what + " " + value
}

func appliedText(w io.Writer, d agent.Applied) {
	switch {
	case d.Skipped != "" && d.Root == d.From:
		fmt.Fprintf(w, "Nothing is done: %s.\n", d.Skipped)
		return
	case d.Skipped != "":
		fmt.Fprintf(w, "Left alone: %s%s: %s.\n", short(d.Root), known("version", d.Version), d.Skipped)
		return
	case d.Restarting:
		fmt.Fprintf(w, "Level\t%s\n", d.Level)
		fmt.Fprintf(w, "Restarting: services stop now and come back in the same root, where the live patch is loaded again.\n")
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
		fmt.Fprintf(w, "Nothing to do: %s runs already%s%s.\n", short(d.Root), known("version", d.Version), known("signed by", signedBy(d.Vouchers)))
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
		fmt.Fprintf(w, "New on disk\t%s\n", bytesText(d.NewBytes))
	}
	if d.Decision != nil {
		decisionText(w, *d.Decision)
	}
	for _, name := range d.Loaded {
		fmt.Fprintf(w, "Live patch\t%s is effective\n", name)
	}
	if d.Decision != nil && d.Decision.Level == level.Full {
		fmt.Fprintf(w, "Rebooting: the kernel boots and lands on the host root, which goes on into the new one; `updatectl status` tells how it went.\n")
		return
	}
	fmt.Fprintf(w, "Switching: services stop now and come back in the new root; `updatectl status` tells how it went.\n")
}
