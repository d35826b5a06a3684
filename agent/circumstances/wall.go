package circumstances

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/updatectl/updatectl/verify/printable"
)

// Run runs a program with its arguments, and returns an error that says why it failed.
type Run func(ctx context.Context, program string, args ...string) error

// Program is the [Run] of this host.
func Program(ctx context.Context, program string, args ...string) error {
	c := exec.CommandContext(ctx, program, args...)
	c.WaitDelay = time.Second
	return c.Run()
}

// Tell writes to the terminals of everybody who is logged in that the host switches at a time, and why
// if that is not "".
func Tell(ctx context.Context, run Run, at time.Time, why string) error {
	ctx, end := context.WithTimeout(ctx, patience)
	defer end()
	text := "This host switches to another version at " + at.Format("15:04 MST on 2006-01-02")
	if why != "" {
		text += ": " + strings.TrimSuffix(printable.Text(why), ".")
	}
	text += ". Its services restart and sessions end."
	if err := run(ctx, "wall", text); err != nil {
		return fmt.Errorf("cannot tell the people who are logged in (wall): %w", err)
	}
	return nil
}
