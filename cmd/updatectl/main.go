// Command updatectl keeps a host on a signed operating system image and moves it to the next one by a soft reboot.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"

	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/image/fetcher"
)

func main() {
	fetcher.Main()
	os.Exit(execute(os.Stdout, os.Stderr))
}

// execute runs the command line of this process and returns the exit code. A signal cancels the command.
func execute(stdout, stderr io.Writer) int {
	// A shutdown that this very process asked for must not cut its last words short: SIGTERM only cancels.
	ctx, stop := signal.NotifyContext(context.Background(), usage.Signals()...)
	defer stop()
	return run(ctx, os.Args[1:], stdout, stderr)
}
