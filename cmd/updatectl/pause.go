package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent/pause"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func pauseCommand(c *cli) *cobra.Command {
	var p pause.Pause
	var until string
	cmd := &cobra.Command{
		Use:   "pause",
		Short: "Keep this host in its root until a time, or until unpause",
		Long: `Keep this host in its root: "updatectl apply", "updatectl switch" and the timer
do not switch while updates are paused. They are still fetched.

"updatectl rollback" works all the same, and so does the return to the last
good root after a full reboot. "updatectl unpause" ends the pause.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.running()
			if err != nil {
				return err
			}
			if p.Until, err = untilTime(until, a.Now()); err != nil {
				return usageError{fmt.Errorf("--until: %w", err), cmd.CommandPath()}
			}
			if len(p.Reason) > pause.MaxReason {
				return usageError{fmt.Errorf("--reason is longer than %d bytes", pause.MaxReason), cmd.CommandPath()}
			}
			p.By = whoAmI()
			done, err := pause.Set(a.Host, p)
			if err != nil {
				return err
			}
			return c.print("pause", done, func(w io.Writer) { report.Paused(w, done) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&until, "until", "", "end at `TIME`: 2h, 18:30, 2027-01-31, or 2027-01-31T18:30:00Z")
	f.StringVar(&p.Reason, "reason", "", "`WHY`, for whoever asks")
	return cmd
}

func unpauseCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "unpause",
		Short: "End a pause",
		Args:  usage.Arguments(),
		RunE: func(*cobra.Command, []string) error {
			a, err := c.running()
			if err != nil {
				return err
			}
			was, err := pause.Lift(a.Host)
			if err != nil {
				return err
			}
			return c.print("unpause", unpaused{was}, func(w io.Writer) { report.Unpaused(w, was) })
		},
	}
}

// unpaused is the answer of unpause: the pause that ended, nil if there was none.
type unpaused struct {
	Was *pause.Pause `json:"was,omitempty"`
}

// whoAmI returns the name of the person behind this process, as far as sudo says.
func whoAmI() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); err == nil {
		name = cmp.Or(name, u.Username)
	}
	return name
}

// untilTime returns the time that a person wrote, in the time zone of the host; "" is the zero time.
func untilTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(d).Truncate(time.Second), nil
	}
	for _, form := range []string{time.RFC3339, "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			if !t.After(now) {
				return t, fmt.Errorf("%s has passed", text)
			}
			return t, nil
		}
	}
	if t, err := time.ParseInLocation("15:04", text, now.Location()); err == nil {
		t = time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location())
		if !t.After(now) { // tomorrow at that time, also when the clock changes tonight
			t = time.Date(now.Year(), now.Month(), now.Day()+1, t.Hour(), t.Minute(), 0, 0, now.Location())
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is not a time such as 2h, 18:30, 2027-01-31, or 2027-01-31T18:30:00Z", text)
}
