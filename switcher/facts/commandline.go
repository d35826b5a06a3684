package facts

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// stayWord keeps a boot of the kernel on the mutable host. The unit that resumes has it as a condition.
const stayWord = "updatectl.resume=0"

// MustStay tells whether the kernel was booted to stay on the mutable host. In a container the command line is PID 1's, as it
// is for systemd (kernel-command-line(7)).
func (m Machine) MustStay() (bool, error) {
	file, end := "/proc/cmdline", " "
	if rootfs.Exists(m.Path("/run/systemd/container")) {
		file, end = "/proc/1/cmdline", "\x00"
	}
	text, err := os.ReadFile(m.Path(file))
	if err != nil {
		return false, fmt.Errorf("cannot read the kernel's command line: %w", err)
	}
	return slices.Contains(strings.Split(strings.TrimSpace(string(text)), end), stayWord), nil
}
