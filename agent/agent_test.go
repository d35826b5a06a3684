package agent

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/testtree"
)

// TestUsableConfig: with an invalid configuration, NewAnyway uses the valid parts.
func TestUsableConfig(t *testing.T) {
	root := t.TempDir()
	testtree.File(t, root, "etc/updatectl/updatectl.toml",
		"[health]\ndeadline = '7m'\n[switch]\nof-a-newer-agent = true\nstuck = 'escalate'\n")
	testtree.File(t, root, "etc/updatectl/conf.d/10-typo.toml", "[health]\ndeadline = '9m\n")
	testtree.File(t, root, "etc/updatectl/conf.d/20-value.toml", "[switch]\nlevel = 'warm'\n")
	testtree.File(t, root, "etc/updatectl/conf.d/30-good.toml", "[health]\nsettle = '3s'\n")
	testtree.File(t, root, record.RecordFile,
		`{"phase":"good","good":["host","v1"],"state":{"persist":["/var","/data"]}}`)
	if _, err := New(root, "", zap.NewNop()); !errors.Is(err, config.ErrConfig) {
		t.Errorf("New: %v, want ErrConfig", err)
	}
	a, err := NewAnyway(root, "", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Config.State.Persist; !slices.Equal(got, []string{"/var", "/data"}) {
		t.Errorf("the state is %v, not that of the last good root", got)
	}
	want := config.Default()
	want.Health.Deadline, want.Health.Settle = config.Duration(7*time.Minute), config.Duration(3*time.Second)
	want.Switch.Stuck = config.StuckEscalate
	if !reflect.DeepEqual(a.Config.Health, want.Health) || !reflect.DeepEqual(a.Config.Switch, want.Switch) ||
		a.Trial.ConfigFault == nil {
		t.Errorf("the configuration is %+v (fault %v)", a.Config, a.Trial.ConfigFault)
	}
}
