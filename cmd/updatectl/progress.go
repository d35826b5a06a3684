package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/cmd/usage"
)

// follow shows the agent's progress: bars on a terminal, JSON lines on --progress-fd, nothing otherwise. The returned
// function ends the display.
func (c *cli) follow(a *agent.Agent) (finish func(), err error) {
	if c.progressFD >= 0 {
		return c.followJSON(a)
	}
	if c.quiet || c.output == "json" || !isTerminal(c.stderr) {
		return func() {}, nil
	}
	if !hasSize(c.stderr) {
		c.followLines(a)
		return func() {}, nil
	}
	return c.followBars(a), nil
}

// followLines writes a line for each step: on a terminal that does not know its size, such as many serial consoles, no
// bar is drawn.
func (c *cli) followLines(a *agent.Agent) {
	step := ""
	a.Progress = func(p agent.Progress) {
		if p.Step != step {
			step = p.Step
			fmt.Fprintf(c.stderr, "%s, %s\n", p.Step, usage.Size(p.Total))
		}
	}
}

// followed runs a long step and shows its progress.
func (c *cli) followed(do func(*agent.Agent) (agent.Applied, error)) (agent.Applied, error) {
	a, err := c.agent()
	if err != nil {
		return agent.Applied{}, err
	}
	finish, err := c.follow(a)
	if err != nil {
		return agent.Applied{}, err
	}
	defer finish()
	return do(a)
}

// everyStep is how often progress is written.
const everyStep = 200 * time.Millisecond

func (c *cli) followJSON(a *agent.Agent) (func(), error) {
	file := os.NewFile(uintptr(c.progressFD), "progress")
	if _, err := file.Stat(); err != nil {
		return nil, usageError{err: fmt.Errorf("cannot write progress: file descriptor %d is not open", c.progressFD)}
	}
	lines := json.NewEncoder(file)
	var last agent.Progress
	var at time.Time
	a.Progress = func(p agent.Progress) {
		if p.Step == last.Step && p.Done < p.Total && time.Since(at) < everyStep {
			return
		}
		last, at = p, time.Now()
		lines.Encode(p) // a reader that went away does not stop the update
	}
	return func() {}, nil
}

func (c *cli) followBars(a *agent.Agent) func() {
	bars := mpb.New(mpb.WithOutput(c.stderr), mpb.WithWidth(60))
	var bar *mpb.Bar
	var step string
	finishBar := func() {
		if bar != nil {
			bar.Abort(false) // a full bar stays full; Shutdown would wait for any other
		}
	}
	a.Progress = func(p agent.Progress) {
		if p.Step != step {
			finishBar()
			step = p.Step
			bar = bars.AddBar(p.Total,
				mpb.PrependDecorators(decor.Name(p.Step, decor.WCSyncSpaceR)),
				mpb.AppendDecorators(decor.CountersKiloByte("% .1f / % .1f"), decor.Name("  "),
					decor.AverageETA(decor.ET_STYLE_GO)))
		}
		bar.SetTotal(p.Total, false)
		bar.SetCurrent(p.Done)
	}
	return func() {
		finishBar()
		bars.Shutdown()
	}
}
