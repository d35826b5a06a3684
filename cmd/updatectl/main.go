// Command updatectl keeps a host on a signed operating system image and moves it to the next one by a soft reboot.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// A shutdown that this very process asked for must not cut its last words short: SIGTERM only cancels.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
