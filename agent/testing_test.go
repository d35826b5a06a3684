package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher/facts"
)

func WriteFile(t *testing.T, root, name, text string) string {
	t.Helper()
	p := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAgent(t *testing.T) *Agent {
	t.Helper()
	a := &Agent{Machine: facts.Machine{Root: t.TempDir()}, Config: config.Default(), Log: zap.NewNop(), Now: time.Now}
	WriteFile(t, a.Machine.Root, record.StateDir+"/.keep", "")
	return a
}
