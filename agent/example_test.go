package agent_test

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
)

// The whole update: what a command, a timer or another program does. It is compiled and not run, because it would
// restart the userspace of the machine it runs on.
func Example() {
	ctx := context.Background()
	a, err := agent.New("/", "", zap.NewExample())
	if err != nil {
		fmt.Println("the configuration is wrong:", err)
		return
	}
	available, err := a.Check(ctx, "") // signed by whom the configuration asks for; no layer is fetched
	if err != nil || !available.Newer {
		return
	}
	_, err = a.Apply(ctx, agent.ApplyOptions{}) // fetch, verify, stage, decide, arm and ask for the soft reboot
	switch {
	case errors.Is(err, record.ErrBlocked):
		fmt.Println("not now:", err)
	case err != nil:
		fmt.Println("the host stays as it is:", err)
	}
	// Services stop now. Agent.Arm joins the new root when they have; in it, Agent.Confirm proves the switch:
	if confirmed, err := a.Confirm(ctx); err == nil && confirmed.Good {
		fmt.Println("the host runs", confirmed.Root)
	}
}
