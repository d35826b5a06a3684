package event

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const catalog = "../../configs/catalog/updatectl.catalog"

// identities returns the name of every event by its identity.
func identities(t *testing.T) map[string]string {
	t.Helper()
	byID := map[string]string{}
	for e := range events {
		byID[e.ID()] = e.String()
	}
	if len(byID) != int(events) || len(byID) < 10 {
		t.Fatalf("%d events have %d identities", events, len(byID))
	}
	return byID
}

// TestIdentities: each event has its own name and its own identity, in the form of sd-id128(3).
func TestIdentities(t *testing.T) {
	byID := identities(t)
	form := regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$`) // 128 random bits: version 4, RFC variant
	name := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	for id, n := range byID {
		if !form.MatchString(id) || !name.MatchString(n) {
			t.Errorf("%q has the identity %q", n, id)
		}
	}
	if names := slices.Sorted(maps.Values(byID)); len(slices.Compact(names)) != len(byID) {
		t.Errorf("a name is there twice: %v", names)
	}
	if got := Event(-1).String(); got != "event -1" {
		t.Errorf("no event is called %q", got)
	}
}

// TestStable: watchers know these identities. A line of this list never changes.
func TestStable(t *testing.T) {
	for name, id := range map[Event]string{
		Staged: "45de0d2c3c20436a9d462fad17fcfc0f", Switching: "8ea018daab8d41f693074a125a2afcba",
		Good: "419e027391da4ee3a06785de20d3a052", Resumed: "bd3eba1dbaec47088968239f3d1868e0",
		RolledBack: "76688c5af4e44a6aa10dcf6560d6a42b", Unhealthy: "4f1eb634a571435b9d1e05d8fbe7ce8f",
		SwitchFailed: "3a65bc842f934a20833cf4be1ce48a25", FullReboot: "d93487401f5b4df6b5fda9bd6f90cbf4",
		NotResumed: "6ced00a6a1494c75b7bc8d0f8b44f1ce", Waiting: "172f095490da446dbac8211f0cd29f6d",
		Refused: "ad075a35c64d42d7a9aee624e7c289c6", SlotKept: "f7ca0c2dbb27476095a4da21ccbe5423",
		FullRebootDue: "09145198c4ba46c5b6f9b2a08f9f41cc", LivePatchEffective: "a52a414b2b704c91983c7d8a6852d8bd",
		LivePatchFailed: "9d274dcaf9cf49d6872aca97e802628c", LivePatchHeld: "8e47019522cd467caedab417b231c74e",
	} {
		if got := name.ID(); got != id {
			t.Errorf("%v has the identity %s, and was shipped with %s", name, got, id)
		}
	}
}

// TestField: a log entry says which event it is.
func TestField(t *testing.T) {
	fields := zapcore.NewMapObjectEncoder()
	zap.String("root", "x").AddTo(fields)
	if e, is := Of(fields.Fields); is {
		t.Errorf("an ordinary entry is %v", e)
	}
	Waiting.Field().AddTo(fields)
	if e, is := Of(fields.Fields); !is || e != Waiting {
		t.Errorf("the entry is %v (%v)", e, is)
	}
}

// TestPage: the page lists every event with its identity, and no other.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| `([0-9a-f]+)` \\|")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		listed[m[2]] = m[1]
	}
	if want := identities(t); !maps.Equal(listed, want) {
		t.Errorf("the page has %v, want %v", listed, want)
	}
}

// TestCatalog: systemd can read the catalog, which has a subject and a text for each event and nothing else.
func TestCatalog(t *testing.T) {
	if _, err := exec.LookPath("journalctl"); err != nil {
		t.Fatal("`make setup` installs what this test needs, the package systemd: ", err)
	}
	text, err := os.ReadFile(catalog)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	dir := filepath.Join(root, "usr/lib/systemd/catalog")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(catalog)), text, 0o644); err != nil {
		t.Fatal(err)
	}
	journalctl := func(args ...string) string {
		out, err := exec.Command("journalctl", append([]string{"--root=" + root}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("journalctl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := journalctl("--update-catalog"); out != "" {
		t.Errorf("systemd says\n%s", out)
	}
	var listed []string
	for line := range strings.Lines(journalctl("--list-catalog")) {
		id, rest, _ := strings.Cut(line, " ")
		if listed = append(listed, id); !strings.HasPrefix(rest, "updatectl: ") || len(rest) < len("updatectl: ")+10 {
			t.Errorf("%s has the subject %q", id, rest)
		}
	}
	slices.Sort(listed)
	if want := slices.Sorted(maps.Keys(identities(t))); !slices.Equal(listed, want) {
		t.Errorf("the catalog has %v, want %v", listed, want)
	}
	for _, id := range listed {
		if _, body, _ := strings.Cut(journalctl("--dump-catalog", id), "\n\n"); len(strings.TrimSpace(body)) < 40 {
			t.Errorf("%s says %q", id, body)
		}
	}
	for _, field := range regexp.MustCompile("@([^@\n]*)@").FindAllStringSubmatch(string(text), -1) {
		if !regexp.MustCompile(`^UPDATECTL_[A-Z_]+$`).MatchString(field[1]) {
			t.Errorf("the catalog names the field %q", field[1])
		}
	}
}
