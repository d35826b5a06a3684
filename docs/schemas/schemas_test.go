package schemas

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestEverySchema: each one is valid JSON Schema, and closed wherever it describes an object.
func TestEverySchema(t *testing.T) {
	names, err := Names()
	if err != nil || len(names) < 30 {
		t.Fatalf("found are %v, %v", names, err)
	}
	for _, name := range names {
		if _, err := compiled(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	found, err := files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		text, err := files.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		var schema any
		if err := json.Unmarshal(text, &schema); err != nil {
			t.Fatal(err)
		}
		closed(t, f.Name(), schema)
	}
}

// closed walks a schema and looks for objects that allow any member.
func closed(t *testing.T, where string, v any) {
	t.Helper()
	switch v := v.(type) {
	case []any:
		for _, member := range v {
			closed(t, where, member)
		}
	case map[string]any:
		if v["type"] == "object" && v["additionalProperties"] == nil {
			t.Errorf("%s has an object that is not closed: %v", where, v)
		}
		for name, member := range v {
			closed(t, where+"/"+name, member)
		}
	}
}

// TestCheck: what the tests of the commands rely on. A validator that accepts everything would not be noticed there.
func TestCheck(t *testing.T) {
	const good = `{"schema": "updatectl.history/v1", "events": [{"at": "2026-03-01T10:00:00Z", "event": "staged"}]}`
	if err := Check([]byte(good)); err != nil {
		t.Errorf("a valid document is refused: %v", err)
	}
	for name, change := range map[string][2]string{
		"a null for a list":    {`[{"at": "2026-03-01T10:00:00Z", "event": "staged"}]`, `null`},
		"a member more":        {`"events"`, `"more": 1, "events"`},
		"a member more within": {`"event":`, `"more": 1, "event":`},
		"a member less":        {`, "event": "staged"`, ``},
		"an unknown word":      {`"staged"`, `"stagged"`},
		"no time":              {`2026-03-01T10`, `yesterday`},
		"another type":         {`"staged"`, `7`},
		"an unknown schema":    {`history/v1`, `history/v9`},
		"no schema":            {`"schema"`, `"shema"`},
		"no JSON":              {`{`, ``},
		"more than one":        {`]}`, `]}{}`},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Fatalf("%s changes nothing", name)
		}
		if err := Check([]byte(bad)); err == nil {
			t.Errorf("%s is accepted: %s", name, bad)
		}
	}
}
