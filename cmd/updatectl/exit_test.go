package main

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/configs"
)

// TestEarlyUnitsNeverFail: whatever updatectl ends with, the units that load live patches and that renew what is active
// have not failed. A failed unit makes a new root count as unhealthy.
func TestEarlyUnitsNeverFail(t *testing.T) {
	codes := []int{exitError, exitUsage, exitAvailable}
	for _, f := range failures {
		codes = append(codes, f.code)
	}
	for _, unit := range []string{"updatectl-livepatch.service", "updatectl-renew.service"} {
		_, after, _ := strings.Cut(configs.Units()[unit], "\nSuccessExitStatus=")
		line, _, _ := strings.Cut(after, "\n")
		accepted := strings.Fields(line)
		for _, code := range codes {
			if !slices.Contains(accepted, strconv.Itoa(code)) {
				t.Errorf("exit code %d of %s is a failure; %q are none", code, unit, line)
			}
		}
	}
}
