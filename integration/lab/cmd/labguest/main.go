// Labguest is a service in the lab's machines that runs commands for the lab: see package guest.
//
// It copies its unit to /run, the only file system that stays across a soft reboot, so that every root starts it.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/updatectl/updatectl/integration/lab/guest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "labguest: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	if err := stay(os.Args[1]); err != nil {
		return fmt.Errorf("cannot survive soft reboots: %w", err)
	}
	return guest.Serve("/dev/vport*p*")
}

// stay copies this program's unit to /run, where every boot wants it.
func stay(unit string) error {
	text, err := os.ReadFile(unit)
	if err != nil {
		return err
	}
	const units = "/run/systemd/system"
	path := filepath.Join(units, filepath.Base(unit))
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	wants := filepath.Join(units, "sysinit.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return err
	}
	return os.Symlink(path, filepath.Join(wants, filepath.Base(unit)))
}
