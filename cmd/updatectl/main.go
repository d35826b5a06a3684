// Command updatectl keeps a host on a signed operating system image and moves it to the next one by a soft reboot.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(execute(os.Stdout, os.Stderr)) }

// execute runs the command line of this process and returns the exit code. A signal cancels the command.
func execute(stdout, stderr io.Writer) int {
	// A shutdown that this very process asked for must not cut its last words short: SIGTERM only cancels.
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it; otherwise a lost session cancels, too
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	return run(ctx, os.Args[1:], stdout, stderr)
}
