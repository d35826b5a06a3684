package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
)

// accepted is the flag that accepts losses.
type accepted struct{ kinds *[]record.LossKind }

// acceptLosses adds the flag to a command.
func acceptLosses(f *pflag.FlagSet, o *agent.ApplyOptions) {
	f.Var(accepted{&o.Accept}, "accept", "`LOSS` that the host may suffer, once and for all: "+lossNames(", "))
}

func lossNames(separator string) string { return joinLosses(record.LossKinds, separator) }

func joinLosses(kinds []record.LossKind, separator string) string {
	var names []string
	for _, kind := range kinds {
		names = append(names, string(kind))
	}
	return strings.Join(names, separator)
}

// Set adds the kinds in a list.
func (a accepted) Set(list string) error {
	for name := range strings.SplitSeq(list, ",") {
		kind := record.LossKind(strings.TrimSpace(name))
		if !slices.Contains(record.LossKinds, kind) {
			return fmt.Errorf("cannot accept %q: it is one of %s", name, lossNames(", "))
		}
		*a.kinds = append(*a.kinds, kind)
	}
	return nil
}

func (a accepted) String() string {
	if a.kinds == nil {
		return ""
	}
	return joinLosses(*a.kinds, ",")
}

// Type is shown in the help.
func (accepted) Type() string { return "LOSS" }

// adviseAccept adds to a refusal of a command because of losses how to keep what would be lost, and how to do without
// it.
func adviseAccept(err error, command string, o agent.ApplyOptions) error {
	if advice := lossAdvice(err, command, o); advice != "" {
		return advised{err, advice}
	}
	return err
}

// lossAdvice returns what to do about a command that was refused because of losses, with the same flags, "" for any
// other error.
func lossAdvice(err error, command string, o agent.ApplyOptions) string {
	var loss roots.Loss
	if !errors.As(err, &loss) {
		return ""
	}
	kinds := slices.Concat(o.Accept, loss.Kinds)
	slices.Sort(kinds)
	again := command + " --accept " + joinLosses(slices.Compact(kinds), ",") + flagsOf(o)
	if o.Retry {
		again += " --retry"
	}
	advice := "`updatectl " + again + "` does without, and does not ask again; docs/first-apply.md has " +
		"the ways on"
	if slices.Contains(loss.Kinds, record.LossServices) {
		return "`updatectl adopt` prints the [state] table that keeps them; " + advice
	}
	return advice
}

// flagsOf returns the flags that chose the image and the level, for a command to be repeated.
func flagsOf(o agent.ApplyOptions) (flags string) {
	if o.From != "" {
		flags += " --from " + o.From
	}
	if o.Volatile {
		flags += " --volatile"
	}
	if o.AllowDowngrade {
		flags += " --allow-downgrade"
	}
	if o.Level != "" && !o.Volatile { // which implies one
		flags += " --level " + string(o.Level)
	}
	return flags
}
