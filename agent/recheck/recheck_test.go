package recheck

import (
	"errors"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/hosttest"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/testtree"
	"github.com/updatectl/updatectl/verify"
)

// revoke revokes the key of the roots in the configuration of a host.
func revoke(c *config.Config) {
	c.Verify.Key = []config.KeyRule{{File: hosttest.KeyFile, Revoked: true, Reason: "the laptop was stolen"}}
}

func TestRevoked(t *testing.T) {
	h := hosttest.New(t)
	id := hosttest.Root(t, h)
	for _, root := range []string{id, switcher.HostRoot, "sha256-none"} {
		if err := Revoked(h, root); err != nil {
			t.Errorf("%s: %v", root, err)
		}
	}
	h = hosttest.NextRun(h)
	revoke(&h.Config)
	if err := Revoked(h, id); !errors.Is(err, verify.ErrRevoked) || !strings.Contains(err.Error(), "laptop was stolen") {
		t.Errorf("%v", err)
	}
	for _, root := range []string{switcher.HostRoot, "sha256-none"} {
		if err := Revoked(h, root); err != nil {
			t.Errorf("%s: %v", root, err)
		}
	}
}

// TestOnReturn: before a rollback, it is said that a revoked key signed the root, and that the revocation holds there
// although the /etc of that root has none.
func TestOnReturn(t *testing.T) {
	h := hosttest.New(t)
	id := hosttest.Root(t, h)
	f := hosttest.Kernel
	etc := record.StateDir + "/roots/" + id + "/etc/updatectl/"
	testtree.File(t, h.Machine.Root, etc+"updatectl.toml", "[verify]\nkeys = ['"+hosttest.KeyFile+"']\n")
	key, err := h.Machine.Disk.ReadFile(h.Path(hosttest.KeyFile), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	testtree.File(t, h.Machine.Root, etc+"keys/release.pub", string(key))
	if warnings := OnReturn(&roots.Roots{Host: h}, id, f); len(warnings) != 0 {
		t.Errorf("%q", warnings)
	}
	h = hosttest.NextRun(h)
	revoke(&h.Config)
	if err := h.KeepRestrictions(); err != nil {
		t.Fatal(err)
	}
	warnings := OnReturn(&roots.Roots{Host: h}, id, f)
	if len(warnings) != 2 || !strings.Contains(warnings[0], "today's policy does not accept "+id) ||
		!strings.Contains(warnings[1], "is revoked (the laptop was stolen): the configuration of host says so") {
		t.Errorf("%q", warnings)
	}
}

// TestMayResume: [verify] revoked-roots decides whether a root that a revoked key signed is resumed.
func TestMayResume(t *testing.T) {
	h := hosttest.New(t)
	id := hosttest.Root(t, h)
	good := h.Config
	revoked := h.Config
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
		h := hosttest.NextRun(h)
		h.Config = c.config
		h.Config.Verify.RevokedRoots = c.rule
		if err := MayResume(h, c.root); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
