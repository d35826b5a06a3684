//go:build lab

package integration

import (
	"os"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Enter(lab.Prepare, m.Run)) }
