package lab

import (
	"errors"
	"fmt"
	"time"
)

// ErrTimeout is returned when something did not come about in the time it was given.
var ErrTimeout = errors.New("waited too long")

// pollInterval is short beside what is waited for (boots of a second and more), long beside the cost of asking.
const pollInterval = 50 * time.Millisecond

// poll asks until the answer is yes, an error, or too late.
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
