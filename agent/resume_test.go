package agent

import (
	"errors"
	"testing"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/verify"
)

// TestMayResume: [verify] revoked-roots decides whether a root that a revoked key signed is resumed.
func TestMayResume(t *testing.T) {
	a := testAgent(t)
	id := hosttest.Root(t, a.Host)
	good := a.Config
	revoked := a.Config
	revoked.Verify.Key = []config.KeyRule{{File: hosttest.KeyFile, Revoked: true}}
	for name, c := range map[string]struct {
		config config.Config
		rule   string
		root   string
		want   error
	}{
		"trusted":             {good, config.RevokedRefuse, id, nil},
		"revoked":             {revoked, config.RevokedRefuse, id, verify.ErrRevoked},
		"revoked, warned of":  {revoked, config.RevokedWarn, id, nil},
		"the host root":       {revoked, config.RevokedRefuse, switcher.HostRoot, nil},
		"a root that is gone": {revoked, config.RevokedRefuse, "sha256-none", nil},
		"an invalid policy":   {config.Config{}, config.RevokedRefuse, id, nil},
	} {
		h := hosttest.NextRun(a.Host)
		h.Config = c.config
		h.Config.Verify.RevokedRoots = c.rule
		if err := (&session{Agent: On(h.Machine, h.Config, h.Log)}).mayResume(c.root); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
