package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/adoption"
	"github.com/updatectl/updatectl/agent/changes"
	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/fleetlock"
	"github.com/updatectl/updatectl/agent/garbage"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/pause"
	"github.com/updatectl/updatectl/agent/recheck"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/renew"
	"github.com/updatectl/updatectl/agent/repair"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/trial"
	"github.com/updatectl/updatectl/agent/trust"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/docs/schemas"
	"github.com/updatectl/updatectl/switcher/ending"
	"github.com/updatectl/updatectl/switcher/etc/difference"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/verify"
)

// documents are all that updatectl writes as JSON, by schema.
var documents = map[string]any{
	"updatectl.check/v1":            agent.Available{},
	"updatectl.plan/v1":             agent.Plan{},
	"updatectl.adopt/v1":            adoption.Report{},
	"updatectl.adopt.fetch/v1":      adoption.Fetched{},
	"updatectl.stage/v1":            agent.Applied{},
	"updatectl.apply/v1":            agent.Applied{},
	"updatectl.rollback/v1":         agent.Applied{},
	"updatectl.switch/v1":           agent.Applied{},
	"updatectl.status/v1":           agent.Status{},
	"updatectl.roots/v1":            roots.List{},
	"updatectl.status.kernel/v1":    renew.KernelStatus{},
	"updatectl.history/v1":          historyAnswer{},
	"updatectl.analyze/v1":          analyzeAnswer{},
	"updatectl.verify/v1":           recheck.Rechecked{},
	"updatectl.config.check/v1":     checkedConfig{},
	"updatectl.config.show/v1":      config.Config{},
	"updatectl.config.example/v1":   exampleAnswer{},
	"updatectl.gc/v1":               garbage.Collected{},
	"updatectl.fsck/v1":             repair.Fscked{},
	"updatectl.pin/v1":              agent.Pinned{},
	"updatectl.unpin/v1":            agent.Pinned{},
	"updatectl.pause/v1":            pause.Pause{},
	"updatectl.unpause/v1":          unpaused{},
	"updatectl.slot/v1":             slotAnswer{},
	"updatectl.livepatch.list/v1":   agent.LivePatchList{},
	"updatectl.livepatch.apply/v1":  agent.LivePatchReport{},
	"updatectl.livepatch.revert/v1": agent.LivePatchReport{},
	"updatectl.confirm/v1":          trial.Confirmed{},
	"updatectl.resume/v1":           agent.Resumed{},
	"updatectl.derive/v1":           changes.Derived{},
	"updatectl.etc.diff/v1":         changes.Differences{},
	"updatectl.etc.take/v1":         difference.Taken{},
	"updatectl.version/v1":          versionAnswer{},
	"updatectl.error/v1":            usage.Failure{},
	"updatectl.record/v1":           record.Record{Schema: "updatectl.record/v1"},
	"updatectl.restrictions":        trust.Ledger{},
	"updatectl.history-line":        record.Event{},
	"updatectl.health":              trial.Report{},
	"updatectl.progress":            agent.Progress{},
}

// TestEveryMember: whatever the types can write is documented, and whatever is documented can be written.
func TestEveryMember(t *testing.T) {
	names, err := schemas.Names()
	if err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "updatectl.") })
	slices.Sort(names)
	if ours := slices.Sorted(maps.Keys(documents)); !slices.Equal(names, ours) {
		t.Errorf("the schemas are for %v, and the documents for %v", names, ours)
	}
	for name, value := range documents {
		t.Run(name, func(t *testing.T) {
			v := reflect.New(reflect.TypeOf(value)).Elem()
			v.Set(reflect.ValueOf(value))
			fill(t, v, "")
			text, err := json.Marshal(v.Interface())
			if err != nil {
				t.Fatal(err)
			}
			command, isAnswer := strings.CutSuffix(strings.TrimPrefix(name, "updatectl."), "/v1")
			if isAnswer && command != "record" {
				var out bytes.Buffer
				if err := (&cli{stdout: &out}).printJSON(command, v.Interface()); err != nil {
					t.Fatal(err)
				}
				text = out.Bytes()
			}
			if err := schemas.CheckAs(name, text); err != nil {
				t.Errorf("%v in\n%s", err, text)
			}
			var document any
			if err := json.Unmarshal(text, &document); err != nil {
				t.Fatal(err)
			}
			written(t, name, readSchema(t, strings.ReplaceAll(name, "/", ".")+".json"), document)
		})
	}
}

// sampleGroup has every member; the names of groups are a closed list.
var sampleGroup = adoption.Group{Name: "files", Comes: []string{"a"}, Changes: []string{"b"},
	Stays: []adoption.Stay{{What: "w", Why: "y", Bytes: 1, AtLeast: true, Keep: "k", Refuses: true}}}

// samples are values for types of which not any value will do.
var samples = map[reflect.Type]any{
	reflect.TypeFor[time.Time]():         time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC),
	reflect.TypeFor[digest.Digest]():     digest.FromString("sample"),
	reflect.TypeFor[level.Level]():       level.Soft,
	reflect.TypeFor[roots.State]():       roots.Booted,
	reflect.TypeFor[level.Verdict]():     level.VerdictOK,
	reflect.TypeFor[difference.Change](): difference.Conflicting,
	reflect.TypeFor[level.Outcome]():     level.Switched,
	reflect.TypeFor[record.Phase]():      record.PhaseGood,
	reflect.TypeFor[live.LiveState]():    live.LiveHeld,
	reflect.TypeFor[live.FixState]():     live.FixOpen,
	reflect.TypeFor[verify.Form]():       verify.FormBundle,
	reflect.TypeFor[adoption.Group]():    sampleGroup,
	reflect.TypeFor[ending.Ending]():     ending.Ending{Unit: "u", What: "scope", Name: "n"},
	reflect.TypeFor[keep.Fate]():         keep.Restarts,
	reflect.TypeFor[keep.Way]():          keep.Socket,
	reflect.TypeFor[fleetlock.Want]():    fleetlock.Held,
	reflect.TypeFor[float64]():           0.5,
	reflect.TypeFor[usage.Failure]():     usage.Failure{Error: "e", Reason: "lock", Hint: "h", Code: 12},
	reflect.TypeFor[config.Duration]():   config.Duration(time.Minute),
}

// words are values for members that are plain strings and yet not any string.
var words = map[string]string{
	"event": record.EventStaged, "verb": record.VerbApply, "kind": "boot", "protocol": "tcp",
	"schema": "updatectl.record/v1", "verdict": "ok", "format": "dpkg",
}

// fill gives every exported field a value that is not zero, so that nothing is left out of the JSON.
func fill(t *testing.T, v reflect.Value, member string) {
	t.Helper()
	if sample, is := samples[v.Type()]; is {
		v.Set(reflect.ValueOf(sample))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), member)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Tag.Get("json") != "-" {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				fill(t, v.Field(i), name)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), member)
	case reflect.Array:
		fill(t, v.Index(0), member)
	case reflect.Map:
		value := reflect.New(v.Type().Elem()).Elem()
		fill(t, value, member)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("sample").Convert(v.Type().Key()), value)
	case reflect.String:
		if v.SetString("sample"); words[member] != "" {
			v.SetString(words[member])
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(1)
	default:
		t.Fatalf("there is no sample of %s", v.Type())
	}
}

// written reports the properties of a schema that a document does not have, of which every member was filled.
func written(t *testing.T, where string, schema map[string]any, document any) {
	t.Helper()
	if ref, is := schema["$ref"].(string); is {
		_, name, _ := strings.Cut(ref, "#/$defs/")
		written(t, where, readSchema(t, "common.json")["$defs"].(map[string]any)[name].(map[string]any), document)
		return
	}
	switch document := document.(type) {
	case []any:
		written(t, where, schema["items"].(map[string]any), document[0])
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		for name, property := range properties {
			if document[name] == nil {
				t.Errorf("%s: %q is documented, and nothing writes it", where, name)
				continue
			}
			written(t, where+"/"+name, property.(map[string]any), document[name])
		}
	}
}

func readSchema(t *testing.T, file string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs/schemas", file))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}
