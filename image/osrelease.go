package image

import (
	"strings"

	"github.com/updatectl/updatectl/image/store"
)

// parseOSRelease reads the shell assignments of os-release(5), which have no expansions. Lines that it cannot read are
// ignored, as systemd does.
func parseOSRelease(text string) store.OS {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			values[key] = unquote(value)
		}
	}
	return store.OS{
		ID:           values["ID"],
		VersionID:    values["VERSION_ID"],
		PrettyName:   values["PRETTY_NAME"],
		ImageVersion: values["IMAGE_VERSION"],
	}
}

// unquote removes shell quoting from one word.
func unquote(word string) string {
	if len(word) >= 2 && word[0] == '\'' && word[len(word)-1] == '\'' {
		return word[1 : len(word)-1]
	}
	if len(word) >= 2 && word[0] == '"' && word[len(word)-1] == '"' {
		word = word[1 : len(word)-1]
	}
	var b strings.Builder
	escaped := false
	for _, c := range word {
		if c == '\\' && !escaped {
			escaped = true
			continue
		}
		b.WriteRune(c)
		escaped = false
	}
	return b.String()
}
