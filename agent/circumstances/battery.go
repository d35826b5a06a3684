package circumstances

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Supplies is where the kernel lists the power supplies of a host.
const Supplies = "/sys/class/power_supply"

// maxAttribute bounds an attribute in sysfs, which is one page.
const maxAttribute = 4096

// OnBattery reports whether the host runs on its battery: it can be plugged in, it is not, and a battery discharges.
// Batteries of devices such as a mouse do not count. Where the directory lists no power supplies, the answer is false.
func OnBattery(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot look for power supplies: %w", err)
	}
	var plug, online, discharging bool
	for _, e := range entries {
		read := func(name string) string { return attribute(filepath.Join(dir, e.Name(), name)) }
		if read("scope") == "Device" {
			continue
		}
		switch kind := read("type"); {
		case kind == "Mains", strings.HasPrefix(kind, "USB"), kind == "Wireless":
			plug = true
			online = online || read("online") != "0"
		case kind == "Battery":
			discharging = discharging || read("status") == "Discharging"
		}
	}
	return plug && !online && discharging, nil
}

// attribute returns an attribute in sysfs, "" if it cannot be read: a supply may go at any time, and has some only.
func attribute(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxAttribute))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
