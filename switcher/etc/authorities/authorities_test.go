package authorities

import "testing"

func TestMergeAuthorities(t *testing.T) {
	for _, test := range []struct{ name, old, cur, next, want string }{
		{"switched off here", "a\nb\n", "!a\nb\n", "# c\na\nb\nc\n", "# c\n!a\nb\nc\n"},
		{"switched on here", "!a\n", "a\n", "!a\nb\n", "a\nb\n"},
		{"switched off by the image", "a\n", "a\n", "!a\n", "!a\n"},
		{"switched off before the first image", "", "!a\nb\n", "a\n!b\n", "!a\n!b\n"},
		{"not in the image any more", "a\nb\n", "!a\nb\n", "b\n", "b\n"},
		{"switched off as the last line", "a", "!a", "a", "!a\n"},
		{"nothing", "", "", "", ""},
	} {
		if got := MergeConf([]byte(test.old), []byte(test.cur), []byte(test.next)); string(got) != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
