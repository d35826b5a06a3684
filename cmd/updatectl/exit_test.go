package main

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/configs"
)

// TestLivePatchUnitNeverFails: whatever updatectl ends with, the unit that loads live patches at boot has not failed. A
// failed unit makes a new root count as unhealthy.
func TestLivePatchUnitNeverFails(t *testing.T) {
	_, after, _ := strings.Cut(configs.Units()["updatectl-livepatch.service"], "\nSuccessExitStatus=")
	line, _, _ := strings.Cut(after, "\n")
	accepted := strings.Fields(line)
	codes := []int{exitError, exitUsage, exitAvailable}
	for _, f := range failures {
		codes = append(codes, f.code)
	}
	for _, code := range codes {
		if !slices.Contains(accepted, strconv.Itoa(code)) {
			t.Errorf("exit code %d is a failure; %q are none", code, line)
		}
	}
}
