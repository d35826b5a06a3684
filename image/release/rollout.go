package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/updatectl/updatectl/verify/exactjson"
)

const (
	// maxRollout bounds the duration of a rollout.
	maxRollout = 90 * 24 * time.Hour
	// maxSteps bounds the steps of a rollout.
	maxSteps = 32
	// maxMark bounds why a rollout is paused or stopped, in bytes.
	maxMark = 512
)

// Rollout says when hosts apply a release automatically. Each step is the share of the fleet that may do so, in
// percent. The steps divide the duration evenly, and the first begins at Start. Without steps, the share grows evenly.
type Rollout struct {
	Start    time.Time
	Duration time.Duration
	Steps    []int
	// Paused is why no further host begins for now, Stopped why none begins with this release any more. Both are for
	// people, and at most one is set.
	Paused, Stopped string
}

// rolloutJSON is the JSON form of a rollout.
type rolloutJSON struct {
	Start    time.Time `json:"start"`
	Duration string    `json:"duration"`
	Steps    []int     `json:"steps,omitempty"`
	Paused   string    `json:"paused,omitempty"`
	Stopped  string    `json:"stopped,omitempty"`
}

// MarshalJSON writes a rollout in the form of its annotation.
func (r Rollout) MarshalJSON() ([]byte, error) {
	return json.Marshal(rolloutJSON{r.Start, r.Duration.String(), r.Steps, r.Paused, r.Stopped})
}

// UnmarshalJSON reads a rollout like ParseRollout.
func (r *Rollout) UnmarshalJSON(text []byte) error {
	parsed, err := ParseRollout(string(text))
	if err == nil {
		*r = *parsed
	}
	return err
}

// ParseRollout reads the JSON form of a rollout, for example {"start": "2026-11-22T03:00:00Z", "duration": "72h",
// "steps": [1, 10, 50, 100]}.
func ParseRollout(text string) (*Rollout, error) {
	var j rolloutJSON
	if err := exactjson.Check([]byte(text), &j); err != nil {
		return nil, err
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return nil, fmt.Errorf("it is not a rollout in JSON: %w", err)
	}
	length, err := time.ParseDuration(j.Duration)
	if err != nil || length < 0 || length > maxRollout {
		return nil, fmt.Errorf("its duration is not between 0s and %s", maxRollout)
	}
	r := &Rollout{Start: j.Start.UTC(), Duration: length, Steps: j.Steps, Paused: j.Paused, Stopped: j.Stopped}
	if r.Start.Year() < 1970 {
		return nil, errors.New("it has no start")
	}
	if err := r.checkSteps(); err != nil {
		return nil, err
	}
	if err := r.checkMarks(); err != nil {
		return nil, err
	}
	return r, nil
}

// checkMarks refuses marks that are not one line of text for people.
func (r *Rollout) checkMarks() error {
	if r.Paused != "" && r.Stopped != "" {
		return errors.New("it is both paused and stopped")
	}
	mark := r.Paused + r.Stopped
	if len(mark) > maxMark || strings.ContainsAny(mark, "\n\t") {
		return fmt.Errorf("why it is paused or stopped is not a line of at most %d bytes", maxMark)
	}
	return printable(mark)
}

func (r *Rollout) checkSteps() error {
	if len(r.Steps) > maxSteps {
		return fmt.Errorf("it has %d steps, more than %d", len(r.Steps), maxSteps)
	}
	before := 0
	for _, share := range r.Steps {
		if share <= before || share > 100 {
			return errors.New("its steps must grow, from more than 0 to 100 percent")
		}
		before = share
	}
	if before != 100 && len(r.Steps) > 0 {
		return errors.New("its last step must be 100 percent")
	}
	return nil
}
