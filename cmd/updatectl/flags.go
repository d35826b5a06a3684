package main

import (
	"github.com/spf13/pflag"

	"github.com/updatectl/updatectl/agent"
)

// Flags that several commands have.

// waitFlag adds the flag that waits for the lock.
func waitFlag(f *pflag.FlagSet, wait *bool) {
	f.BoolVar(wait, "wait", false, "wait for another updatectl that is running")
}

// fromFlag adds the flag that replaces the configured source; does is what the command does with it.
func fromFlag(f *pflag.FlagSet, from *string, does string) {
	f.StringVar(from, "from", "", does+" at `REF` instead of the configured source")
}

// allowDowngrade adds the flag that waives the order of releases.
func allowDowngrade(f *pflag.FlagSet, o *agent.ApplyOptions) {
	f.BoolVar(&o.AllowDowngrade, "allow-downgrade", false,
		"take a release that is older than the last one accepted; it must be signed and not expired")
}
