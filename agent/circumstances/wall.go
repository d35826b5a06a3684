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
	return wall(ctx, run, "This host switches to another version at "+at.Format("15:04 MST on 2006-01-02")+because(why)+
		". Its services restart and sessions end.")
}

// CallOff writes to the same terminals that the switch which was announced does not happen, and why if that is not "".
func CallOff(ctx context.Context, run Run, why string) error {
	return wall(ctx, run, "The switch to another version that was announced does not happen now"+because(why)+
		". It will be announced again.")
}

// maxWhy bounds a reason, in bytes: an error may quote what a server has answered.
const maxWhy = 500

// because returns a reason as the end of a sentence.
func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + strings.TrimSuffix(printable.Text(strings.ToValidUTF8(why[:min(len(why), maxWhy)], "")), ".")
}

func wall(ctx context.Context, run Run, text string) error {
	ctx, end := context.WithTimeout(ctx, patience)
	defer end()
	if err := run(ctx, "wall", text); err != nil {
		return fmt.Errorf("cannot tell the people who are logged in (wall): %w", err)
	}
	return nil
}
