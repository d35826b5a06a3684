package lab

import (
	"errors"
	"fmt"
	"time"
)

// ErrTimeout is returned when something did not happen in time.
var ErrTimeout = errors.New("waited too long")

// pollInterval is short compared to a boot, which takes a second and more, and long compared to one check.
const pollInterval = 50 * time.Millisecond

// poll calls ask until it returns true or an error, or until the limit has passed.
func poll(limit time.Duration, ask func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		done, err := ask()
		if err != nil || done {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %s", ErrTimeout, limit)
		}
		time.Sleep(pollInterval)
	}
}
