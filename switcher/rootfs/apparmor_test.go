package rootfs

import (
	"slices"
	"testing"

	"github.com/updatectl/updatectl/switcher/testtree"
)

func TestProfiles(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"usr.sbin.old":        "#include <tunables/global>\n/usr/sbin/old flags=(complain) {\n  /etc/old r,\n}\n",
		"new":                 "abi <abi/4.0>,\n@{exec} = /usr/bin/x\nprofile new @{exec} {\n  profile child {\n  }\n}\n",
		"quoted":              "profile \"two words\" \"/opt/two words\" {\n}\n\"/opt/a b\" {\n}\nprofiles {\n",
		"split":               "profile split\n  /usr/bin/split\n{\n}\n",
		"variable":            "@{exec_path} {\n}\n/usr/@{x}/y {\n}\nprofile z@{x} {\n}\n",
		"braces":              "profile /usr/{bin,sbin}/a {\n}\nprofile short{\n}\n",
		"comment":             "# profile none {\nalias /a -> /b,\n/not/a/profile r, # {\n",
		"off":                 "profile off {\n}\n",
		"disable/off":         "",
		".new.image.dpkg-new": "profile hidden {\n}\n",
		"abstractions/base":   "profile base {\n}\n",
	} {
		testtree.Write(t, root, "etc/apparmor.d/"+name, []byte(text), 0o644)
	}
	want := []string{"/opt/a b", "/usr/sbin/old", "/usr/{bin,sbin}/a", "new", "short", "split", "two words"}
	if got := Profiles(Dir(root)); !slices.Equal(got, want) {
		t.Errorf("profiles %q, want %q", got, want)
	}
	if got := Profiles(Dir(t.TempDir())); len(got) != 0 {
		t.Errorf("a root without any has profiles %q", got)
	}
}

func TestParseLoadedProfiles(t *testing.T) {
	text := "new (enforce)\nnew//child (complain)\ntwo words (unconfined)\n/usr/bin/{a,b} (kill)\n"
	want := []string{"new", "new//child", "two words", "/usr/bin/{a,b}"}
	if got := ParseLoadedProfiles(text); !slices.Equal(got, want) {
		t.Errorf("loaded profiles %q, want %q", got, want)
	}
}
