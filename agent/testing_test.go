package agent

import (
	"testing"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/hosttest"
)

// testAgent returns an agent for a host in a temporary directory, as hosttest.New makes one.
func testAgent(t *testing.T) *Agent {
	t.Helper()
	a := newAgent(t.TempDir(), zap.NewNop())
	hosttest.Prepare(t, a.Host)
	return a
}
