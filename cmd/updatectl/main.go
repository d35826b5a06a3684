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
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as by nohup; else a session that is lost cancels, too, and nothing is left half done
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
