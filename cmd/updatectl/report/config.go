package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/verify/printable"
)

// CheckedConfig writes that a configuration is valid, and what is most likely a mistake in it.
func CheckedConfig(w io.Writer, c config.Config, warnings []string) {
	fmt.Fprintf(w, "The configuration is valid: %s.\n", usage.Count(len(c.Files), "file", "files"))
	for _, warning := range warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
}

// Config writes a configuration as TOML. No line is broken, because that would be no TOML.
func Config(w io.Writer, c config.Config) error {
	var text strings.Builder
	for _, f := range c.Files {
		fmt.Fprintf(&text, "# %s\n", f)
	}
	if err := toml.NewEncoder(&text).Encode(c); err != nil {
		return fmt.Errorf("cannot write the configuration: %w", err)
	}
	if left := c.Verify.Restrictions; len(left) > 0 {
		text.WriteString("\n# A later file left these rules out. They still restrict their keys:\n")
		var rules strings.Builder
		if err := toml.NewEncoder(&rules).Encode(map[string]any{"verify": map[string]any{"key": left}}); err != nil {
			return fmt.Errorf("cannot write the configuration: %w", err)
		}
		for line := range strings.Lines(rules.String()) {
			text.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
		}
	}
	for line := range strings.Lines(text.String()) {
		if _, err := io.WriteString(printable.Lines(w), line); err != nil {
			return err
		}
	}
	return nil
}
