//go:build lab

package integration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
	"github.com/updatectl/updatectl/integration/lab/fault"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == fault.Name { // this program, copied into a host
		os.Exit(fault.Main(os.Args))
	}
	os.Exit(lab.Enter(lab.Prepare(lab.Everything...), m.Run))
}
