package facts

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// stayWord on the kernel command line keeps a full reboot on the host root. The unit that resumes has it as a
// condition.
const stayWord = "updatectl.resume=0"

// MustStay reports whether the kernel command line keeps the host on the host root. In a container, PID 1's command
// line counts instead, as it does for systemd (kernel-command-line(7)).
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
