package authorities

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// FuzzMergeConf: the merged list names what the image lists, in its order, and merging again changes nothing.
func FuzzMergeConf(f *testing.F) {
	f.Add([]byte("a\nb\n"), []byte("a\n!b\n"), []byte("a\nb\nc\n"))
	f.Add([]byte("!a\n"), []byte("a\n"), []byte("!a"))
	f.Add([]byte("# x\n\n!\n"), []byte("!!a\n #b\n"), []byte("!!a\r\n !b\n#\n"))
	names := func(text []byte) (all []string) {
		for line := range strings.Lines(string(text)) {
			all = append(all, strings.TrimLeft(strings.TrimSpace(line), "!"))
		}
		return all
	}
	f.Fuzz(func(t *testing.T, old, cur, next []byte) {
		merged := MergeConf(old, cur, next)
		if !slices.Equal(names(merged), names(next)) {
			t.Errorf("the image lists %q, and the merged list is %q", next, merged)
		}
		if again := MergeConf(old, cur, merged); !bytes.Equal(again, merged) {
			t.Errorf("%q became %q", merged, again)
		}
	})
}

// FuzzAdd: a bundle with the certificates of a text has them all, and gets them once.
func FuzzAdd(f *testing.F) {
	f.Add([]byte("# a comment"), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, bundle, text []byte) {
		added := Add(bundle, [][]byte{text, text})
		if !bytes.HasPrefix(added, bundle) || len(Certificates(added)) < len(Certificates(bundle)) {
			t.Errorf("%q became %q", bundle, added)
		}
		if again := Add(added, [][]byte{text}); !bytes.Equal(again, added) {
			t.Errorf("a second time, %q became %q", added, again)
		}
	})
}
