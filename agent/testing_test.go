package agent

import (
	"testing"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
)

// testAgent returns an agent for a host in a temporary directory, as hosttest.New makes one.
func testAgent(t *testing.T) *Agent {
	t.Helper()
	a := On(machine.Host(t.TempDir(), record.StateDir), config.Default(), zap.NewNop())
	hosttest.Prepare(t, a.Host)
	return a
}
