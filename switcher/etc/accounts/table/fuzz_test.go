package table

import (
	"bytes"
	"testing"
)

// FuzzParse: lines that are not changed stay as they are, and what is parsed is written as it was read.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"root:x:0:0:root:/root:/bin/sh\na:x:1:1::/:\na:x:2:2::/:\n", "root:x:0:\nsudo:x:27:a,b\n", "a:1:2\na:3:4\n#a\n+\n",
		"root:*:1::::::\n", "a:x:4294967295:1::/:\n", "a:x:-1:+1::/:\r\n", "\n\n:::\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want := text
		if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
			want = append(bytes.Clone(text), '\n')
		}
		for file, format := range Formats {
			parsed := Parse(file, text)
			if got := parsed.Bytes(); !bytes.Equal(got, want) {
				t.Errorf("%s: %q became %q", file, text, got)
			}
			for _, r := range parsed.Rows() {
				if r.Fields != nil && len(r.Fields) != len(format.Fields) {
					t.Errorf("%s: %q has %d fields", file, r.Text, len(r.Fields))
				}
			}
			parsed.Without(format, map[string]bool{"a": true})
			parsed.Clone()
			if !format.Ranges && len(format.Numeric) > 0 {
				parsed.Numbers()
				parsed.Named("0")
			}
		}
	})
}
