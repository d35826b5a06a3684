package exactjson

import (
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestCheck: what two readers could understand differently is refused, with the reason; names that are data may be
// anything.
func TestCheck(t *testing.T) {
	for text, want := range map[string]string{
		`{"schemaVersion":2,"layers":[{"digest":"sha256:0","size":1}],"annotations":{"A":"1","a":"2"}}`: "",
		`{"layers":[],"unknown":{"Layers":1,"layers":2},"other":[[{"x":null}]]}`:                        "",
		`{"config":{"platform":null,"urls":["a"]},"subject":null}`:                                      "",
		`{"layers":[],"layers":[]}`:                    `the key "layers" twice`,
		`{"unknown":{"x":1,"x":2}}`:                    `the key "x" twice`,
		`{"annotations":{"A":"1","A":"2"}}`:            `the key "A" twice`,
		`{"layers":[],"Layers":[]}`:                    `"Layers", which is spelled "layers"`,
		`{"layer` + "ſ" + `":[]}`:                      `"layer\u017f", which is spelled "layers"`,
		`{"layers":[{"dige` + "ſ" + `t":"sha256:0"}]}`: `which is spelled "digest"`,
		`{"manifests":{},"conﬁg":{}}`:                  "", // a ligature counts as another letter
		`{"SchemaVersion":2}`:                          `which is spelled "schemaVersion"`,
		`{"subject":{"platform":{"OS":"linux"}}}`:      `which is spelled "os"`,
		`{"layers":` + strings.Repeat("[", 40) + `}`:   "more than 32 levels",
		`{} {}`:            "something after",
		`{}x`:              "something after",
		"{\"a\":\"\xff\"}": "not UTF-8",
		`[]`:               "not a JSON object",
		``:                 "not a JSON object",
		`null`:             "not a JSON object",
		`{"layers":`:       "cut short",
	} {
		err := Check([]byte(text), &ocispec.Manifest{})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestUnmarshal: types that read their JSON themselves, and fields without a tag, are filled as by json.Unmarshal.
func TestUnmarshal(t *testing.T) {
	var v struct {
		Time    *time.Time
		Config  ocispec.Image              `json:"config"`
		Labels  map[string]struct{ A int } `json:"labels"`
		private int
	}
	text := `{"Time":"2026-01-02T03:04:05Z","config":{"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:1"]}},
		"labels":{"x":{"A":1},"X":{"A":2}},"private":1}`
	if err := Unmarshal([]byte(text), &v); err != nil || v.Time.Year() != 2026 || v.Config.OS != "linux" ||
		len(v.Config.RootFS.DiffIDs) != 1 || v.Labels["X"].A != 2 || v.private != 0 {
		t.Errorf("%+v, %v", v, err)
	}
	for text, want := range map[string]string{
		`{"config":{"rootfs":{"Type":"layers"}}}`: `which is spelled "type"`,
		`{"config":{"OS":"linux"}}`:               `which is spelled "os"`, // of an embedded struct
		`{"labels":{"x":{"a":1}}}`:                `which is spelled "A"`,
		`{"time":""}`:                             `which is spelled "Time"`,
	} {
		if err := Unmarshal([]byte(text), &v); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// FuzzCheck: what is accepted says the same to everybody: adding a folded copy of a key changes nothing that is read.
func FuzzCheck(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"layers":[{"digest":"sha256:0","size":1}]}`))
	f.Add([]byte(`{"layer` + "ſ" + `":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var m ocispec.Manifest
		if Unmarshal(text, &m) == nil && len(m.Layers) > 0 && !strings.Contains(string(text), "layers") &&
			!strings.Contains(string(text), `\u`) {
			t.Errorf("%q has layers", text)
		}
	})
}
