package derived

import (
	"strings"
	"testing"
)

const list = `
[[derived]]
name = "a"
files = ["made", "dir/*.x", "certs/*.pem -> /usr/share/"]
sources = ["from.d"]
run = ["/bin/true"]
reason = "r"
`

func TestMakes(t *testing.T) {
	l, err := Parse(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, target string
		link, want   bool
	}{
		{"made", "", false, true},
		{"made/below", "", false, true},
		{"made2", "", false, false},
		{"dir/a.x", "", false, true},
		{"dir/sub/a.x", "", false, false},
		{"certs/a.pem", "/usr/share/a", true, true},
		{"certs/a.pem", "/srv/a", true, false},
		{"certs/a.pem", "", false, false},
		{"from.d/a", "", false, false},
	} {
		if got := l.Makes(test.name, test.target, test.link); got != test.want {
			t.Errorf("%s -> %q is derived: %v, want %v", test.name, test.target, got, test.want)
		}
	}
	if !l[0].Uses("from.d/a") || l[0].Uses("made") {
		t.Error("the sources are not those of the list")
	}
}

func TestMistakes(t *testing.T) {
	for _, test := range []struct{ before, after, want string }{
		{`name = "a"`, ``, "needs a name"},
		{`reason = "r"`, ``, "needs a name"},
		{`"made"`, `"/etc/made"`, "not a path"},
		{`"made"`, `"../made"`, "not a path"},
		{`"made"`, `"[made"`, "not a path"},
		{`"/bin/true"`, `"true"`, "no absolute path"},
		{`sources`, `source`, "unknown"},
		{`[[derived]]`, `[[derived`, "cannot read"},
	} {
		_, err := Parse(strings.Replace(list, test.before, test.after, 1))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s instead of %s: %v, want %q", test.after, test.before, err, test.want)
		}
	}
	if _, err := Parse(list + list); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a name that is there twice: %v", err)
	}
}
