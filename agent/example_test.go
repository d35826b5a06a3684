package agent_test

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image"
)

// The whole update in five calls: fetch, verify, stage, decide, switch. [agent.Agent.Apply] does the same, with the
// decisions between them. The example is compiled and not run, because it would restart the userspace of this machine.
func Example() {
	ctx := context.Background()
	a, err := agent.New("/", "", zap.NewExample())
	if err == nil {
		err = update(ctx, a)
	}
	if err != nil {
		fmt.Println("the host stays as it is:", err)
	}
	// When every service has stopped, the arming unit calls a.Transition.Arm. In the new root, a.Confirm checks its
	// health, and confirms it or rolls back.
}

func update(ctx context.Context, a *agent.Agent) error {
	if err := a.RequireRunning(); err != nil {
		return err
	}
	unlock, err := a.Lock(ctx, "apply", false)
	if err != nil {
		return err
	}
	defer unlock()
	if err := a.Roots.Open(); err != nil {
		return err
	}
	facts, rec, err := a.Look(ctx) // the running host, and what is recorded about it
	if err != nil {
		return err
	}

	fetched, err := a.Offers.Fetch(ctx, "") // "" is the configured reference; no layer is fetched yet
	if err != nil {
		return err
	}
	running := a.Roots.VersionOf(facts.Root, rec)
	published, err := a.Offers.Verify(ctx, fetched, facts, rec, running, false)
	if err != nil {
		return err
	}
	if published.Image == nil || published.Image.ID() == facts.Root {
		return nil // live patches alone, or the image that runs already
	}
	rec.Accept(published.Offered(rec.Mark), a.Now()) // from now on, older releases are refused
	root, err := a.Machine.Trees.Stage(ctx, published.Source, published.Image, published.Reference, func(image.Event) {})
	if err != nil {
		return err
	}
	decision, err := a.Roots.Decide(root, facts, rec, nil, "") // nil: no open kernel fixes; "": the configured level
	if err != nil {
		return err
	}
	if err := a.Roots.Rehearse(root, facts, rec); err != nil { // fail now, not when services have stopped
		return err
	}
	s := record.Switch{Verb: record.VerbApply, Version: published.Mark.Version}
	s.Level = decision.Level
	return a.Transition.Start(ctx, rec, facts, s, root.ID, nil) // writes the record, then requests the reboot
}
