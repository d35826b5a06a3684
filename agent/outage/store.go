package outage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/updatectl/updatectl/durable"
)

const (
	// File is below the directory of the agent's state.
	File = "switches.json"
	// maxKept is how many switches are kept, maxFile how large their file may be, in bytes: a large host has some
	// hundred services.
	maxKept = 50
	maxFile = 4 << 20
)

// Read returns the switches that were measured, the latest last; none when there is no file yet.
func Read(disk durable.Disk, file string) ([]Switch, error) {
	text, err := disk.ReadFile(file, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []Switch
	if err == nil {
		if err = json.Unmarshal(text, &list); err != nil {
			err = fmt.Errorf("%s is damaged (%w): remove it, and the next switch begins a new one", file, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read how long the last switches took: %w", err)
	}
	return list, nil
}

// Keep adds a switch to those that are kept. A file that cannot be read is replaced: it is only for people.
func Keep(disk durable.Disk, file string, s Switch) error {
	list, _ := Read(disk, file)
	list = append(list, s)
	list = list[max(0, len(list)-maxKept):]
	for {
		text, err := json.Marshal(list)
		if err != nil {
			return err
		}
		if len(text) < maxFile || len(list) == 1 {
			return disk.WriteFile(file, append(text, '\n'), 0o600)
		}
		list = list[len(list)/2:]
	}
}
