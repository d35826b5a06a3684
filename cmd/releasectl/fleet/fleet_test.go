package fleet

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/docs/schemas"
)

const hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// status returns the answer of a host that runs a version, with more members.
func status(version, more string) string {
	return `{"schema": "updatectl.status/v1", "phase": "good", "good": [], "booted": {"root": "sha256-` + hex +
		`", "version": "` + version + `"}, "kernel": {"release": "6.12", "version": "", "boot_id": "b", "soft_reboots": 0,
		"live_patches": []}` + more + `}`
}

// lastSwitch returns the member of a status that says how the last switch ended.
func lastSwitch(outcome string) string {
	return `, "last": {"outcome": "` + outcome + `", "reason": "why", "target": "t", "at": "2026-03-01T10:00:00Z"}`
}

// unattended returns the member that says how the last unattended run ended, an hour before or after that switch.
func unattended(reason, hour string) string {
	return `, "unattended": {"at": "2026-03-01T` + hour + `:00:00Z", "reason": "` + reason + `", "text": "it says why"}`
}

const (
	pausedMember = `, "paused": {"at": "2026-03-01T10:00:00Z", "until": "2026-03-02T10:00:00Z", "reason": "holidays"}`
	stagedMember = `, "staged": {"root": "sha256-` + hex + `", "version": "3"}`
	movingMember = `, "switch": {"verb": "apply", "from": "host", "target": "t", "version": "3",
		"at": "2026-03-01T10:00:00Z"}`
	refusedText = `, "refused": {"at": "2026-03-01T10:00:00Z", "reason": "it is not signed"}`
)

// TestJudge: which of the members of a status counts. Every status is one that a host could print.
func TestJudge(t *testing.T) {
	until := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		answer string
		kind   kind
		want   Finding
	}{
		"at rest":      {status("2", ""), rests, Finding{}},
		"switched":     {status("2", lastSwitch("switched")), rests, Finding{}},
		"nothing done": {status("2", unattended("", "11")), rests, Finding{}},
		"unhealthy": {status("2", lastSwitch("unhealthy")), fails,
			Finding{Reason: "unhealthy", Text: "why"}},
		"rolled back": {status("2", lastSwitch("rolled back")+pausedMember), fails,
			Finding{Reason: "unhealthy", Text: "rolled back: why"}},
		"fell back": {status("2", lastSwitch("fell back")), fails, Finding{Reason: "error", Text: "fell back: why"}},
		"an error": {`{"schema": "updatectl.error/v1", "error": "the disk is gone", "exit_code": 1, "reason": "error"}`,
			fails, Finding{Reason: "error", Text: "the disk is gone"}},
		"a switch after a failure": {status("2", lastSwitch("unhealthy")+movingMember), waits,
			Finding{Reason: "trying", Text: "it is switching to 3"}},
		"refused, and the window": {status("2", unattended("window", "11")+refusedText), fails,
			Finding{Reason: "refused", Text: "it is not signed"}},
		"refused, and paused": {status("2", pausedMember+refusedText), fails,
			Finding{Reason: "refused", Text: "it is not signed"}},
		"unreachable, and paused": {status("2", pausedMember+unattended("unreachable", "11")), fails,
			Finding{Reason: "unreachable", Text: "it says why"}},
		"paused": {status("2", pausedMember+stagedMember), waits,
			Finding{Reason: "paused", Text: "holidays", Until: until}},
		"a copy": {status("2", `, "volatile": true`+stagedMember), waits,
			Finding{Reason: "volatile", Text: "it runs on a throw-away copy of the state"}},
		"the window": {status("2", unattended("window", "11")+stagedMember), waits,
			Finding{Reason: "window", Text: "it says why"}},
		"given up": {status("2", unattended("given-up", "11")), fails,
			Finding{Reason: "given-up", Text: "it says why"}},
		"a word of a newer updatectl": {status("2", unattended("moonphase", "11")), fails,
			Finding{Reason: "moonphase", Text: "it says why"}},
		"a run before the last switch": {status("2", lastSwitch("switched")+unattended("unreachable", "09")), rests,
			Finding{}},
		"a run after the last switch": {status("2", lastSwitch("switched")+unattended("unreachable", "11")+refusedText),
			fails, Finding{Reason: "unreachable", Text: "it says why"}},
		"refused": {status("2", refusedText+stagedMember), fails, Finding{Reason: "refused", Text: "it is not signed"}},
		"staged":  {status("2", stagedMember), waits, Finding{Reason: "staged", Text: "3 is staged"}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := schemas.Check([]byte(c.answer)); err != nil {
				t.Fatalf("no host prints that: %v", err)
			}
			a := Read("web1", []byte(c.answer))
			if a.problem != "" {
				t.Fatalf("the answer does not count: %s", a.text)
			}
			if got, kind := judge(a.said); got != c.want || kind != c.kind {
				t.Errorf("got %+v (%d), want %+v (%d)", got, kind, c.want, c.kind)
			}
		})
	}
}

// TestWords: what an unattended run can end with, and how a switch can end, are words of the schemas, and each is known
// here.
func TestWords(t *testing.T) {
	reasons := enum(t, "updatectl.error.v1.json", "properties", "reason", "enum")
	if known := slices.Sorted(maps.Keys(words)); !slices.Equal(known, reasons) {
		t.Errorf("the reasons known here are %v, and the schema has %v", known, reasons)
	}
	ends := enum(t, "common.json", "$defs", "lastSwitch", "properties", "outcome", "enum")
	known := append(slices.Collect(maps.Keys(outcomes)), switched)
	if slices.Sort(known); !slices.Equal(known, ends) {
		t.Errorf("the outcomes known here are %v, and the schema has %v", known, ends)
	}
}

// TestMembers: every member that is read here is one that the schemas have, with the same type.
func TestMembers(t *testing.T) {
	status, failure := schema(t, "updatectl.status.v1.json"), schema(t, "updatectl.error.v1.json")
	properties := status["properties"].(map[string]any)
	for _, name := range []string{"error", "reason"} {
		properties[name] = failure["properties"].(map[string]any)[name]
	}
	properties["host"] = map[string]any{"type": "string"} // of whoever gathers the answers
	if seen := compare(t, "status", reflect.TypeFor[said](), status); seen < 20 {
		t.Errorf("only %d members were compared", seen)
	}
}

// compare compares a type with a schema, and returns how many members it compared.
func compare(t *testing.T, where string, typ reflect.Type, s map[string]any) (seen int) {
	t.Helper()
	if ref, is := s["$ref"].(string); is {
		name := strings.TrimPrefix(ref, "common.json#/$defs/")
		s = schema(t, "common.json")["$defs"].(map[string]any)[name].(map[string]any)
	}
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	want := map[reflect.Kind]string{
		reflect.String: "string", reflect.Bool: "boolean", reflect.Struct: "object",
	}[typ.Kind()]
	if typ == reflect.TypeFor[time.Time]() {
		want = "string"
		if s["format"] != "date-time" {
			t.Errorf("%s is no time in the schema", where)
		}
	}
	_, listed := s["enum"]
	_, fixed := s["const"]
	if s["type"] != want && !(want == "string" && (listed || fixed)) {
		t.Errorf("%s is a %v in the schema, and %s here", where, s["type"], typ)
	}
	if want != "object" {
		return 1
	}
	for i := range typ.NumField() {
		name := typ.Field(i).Tag.Get("json")
		property, there := s["properties"].(map[string]any)[name].(map[string]any)
		if !there {
			t.Errorf("%s has no %q in the schema", where, name)
			continue
		}
		seen += compare(t, where+"/"+name, typ.Field(i).Type, property)
	}
	return seen
}

func schema(t *testing.T, file string) (s map[string]any) {
	t.Helper()
	text, err := os.ReadFile("../../../docs/schemas/" + file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// enum returns the words at a path in a schema.
func enum(t *testing.T, file string, path ...string) (words []string) {
	t.Helper()
	var v any = schema(t, file)
	for _, name := range path {
		v = v.(map[string]any)[name]
	}
	for _, word := range v.([]any) {
		words = append(words, word.(string))
	}
	slices.Sort(words)
	return words
}

// TestRead: an answer that does not count has a reason, and keeps the name of its host.
func TestRead(t *testing.T) {
	for name, c := range map[string]struct{ host, text, wantHost, problem, why string }{
		"a status":         {"web1", status("2", ""), "web1", "", ""},
		"a name within":    {"", `{"host": "web2", ` + status("2", "")[1:], "web2", "", ""},
		"nothing":          {"web1", " \n", "web1", noAnswer, "the answer is empty"},
		"a name alone":     {"", `{"host": "web3"}`, "web3", noAnswer, "the answer names no schema"},
		"no JSON":          {"web1", "ssh: no route", "web1", unreadable, "not the JSON of updatectl status"},
		"half a status":    {"web1", status("2", "")[:40], "web1", unreadable, "not the JSON of updatectl status"},
		"two":              {"web1", status("2", "") + "{}", "web1", unreadable, "not the JSON of updatectl status"},
		"another document": {"web1", `{"schema": "updatectl.plan/v1"}`, "web1", unreadable, `is a "updatectl.plan/v1"`},
		"a newer status":   {"web1", `{"schema": "updatectl.status/v2"}`, "web1", unreadable, "not a updatectl.status/v1"},
		"a status of none": {"web1", `{"schema": "updatectl.status/v1"}`, "web1", unreadable, "which root runs"},
		"another type": {"web1", `{"schema": "updatectl.status/v1", "booted": 1}`, "web1", unreadable,
			"cannot unmarshal"},
		"as long as can be": {"web1", status("2", "") + strings.Repeat(" ", MaxAnswer-len(status("2", ""))), "web1", "", ""},
		"longer":            {"web1", strings.Repeat(" ", MaxAnswer+1), "web1", unreadable, "longer than 4194304 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			a := Read(c.host, []byte(c.text))
			if a.Host != c.wantHost || a.problem != c.problem || !strings.Contains(a.text, c.why) {
				t.Errorf("got %q %q %q, want %q %q %q", a.Host, a.problem, a.text, c.wantHost, c.problem, c.why)
			}
		})
	}
}

// TestSummarise: each host is in one version at most, and in one of the lists at most.
func TestSummarise(t *testing.T) {
	got := Summarise([]Answer{
		Read("web3", []byte(status("2", ""))), Read("web1", []byte(status("2", pausedMember))),
		Read("web2", []byte(status("1", lastSwitch("unhealthy")))), Read("web5", nil),
		Read("web4", []byte(`{"schema": "updatectl.error/v1", "error": "e", "exit_code": 2, "reason": "usage"}`)),
		Unreadable("web0", "permission denied"),
	})
	root := "sha256-" + hex
	want := Summary{
		Hosts: 6,
		Versions: []Version{{Version: "2", Root: root, Count: 2, Hosts: []string{"web1", "web3"}},
			{Version: "1", Root: root, Count: 1, Hosts: []string{"web2"}}},
		Failed: []Finding{{Host: "web2", Reason: "unhealthy", Text: "why"}, {Host: "web4", Reason: "usage", Text: "e"}},
		Waiting: []Finding{{Host: "web1", Reason: "paused", Text: "holidays",
			Until: time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)}},
		Silent: []Finding{{Host: "web0", Reason: unreadable, Text: "permission denied"},
			{Host: "web5", Reason: noAnswer, Text: "the answer is empty"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}
