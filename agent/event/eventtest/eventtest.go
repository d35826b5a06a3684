// Package eventtest shows a test which events the code under test logs. It promises that each one has the fields that
// docs/events.md lists for it, and no others.
package eventtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/updatectl/updatectl/agent/event"
)

// Logged is an event as the journal gets it.
type Logged struct {
	Event event.Event
	// Fields are the values of its fields, by their names in the journal without UPDATECTL_.
	Fields map[string]string
}

// Core returns a core for a zap logger that passes each entry with an event to seen. It drops all other entries.
func Core(seen func(Logged)) zapcore.Core { return core{zapcore.InfoLevel, seen} }

// Log returns a logger, and a function that returns the events that were logged since it was called last, as
// [Page.Line] puts them. What [Page.Check] finds wrong fails the test.
func Log(t testing.TB) (*zap.Logger, func() []string) {
	t.Helper()
	page := ReadPage(t)
	var mu sync.Mutex
	var lines []string
	return zap.New(Core(func(l Logged) {
			mu.Lock()
			defer mu.Unlock()
			if err := page.Check(l); err != nil {
				t.Error(err)
			}
			lines = append(lines, page.Line(l))
		})), func() []string {
			mu.Lock()
			defer mu.Unlock()
			seen := lines
			lines = nil
			return seen
		}
}

// core is a core that keeps nothing.
type core struct {
	zapcore.LevelEnabler
	seen func(Logged)
}

func (c core) With([]zapcore.Field) zapcore.Core { return c }
func (core) Sync() error                         { return nil }

func (c core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return ce.AddCore(e, c)
}

func (c core) Write(_ zapcore.Entry, fields []zapcore.Field) error {
	all := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(all)
	}
	e, is := event.Of(all.Fields)
	if !is {
		return nil
	}
	l := Logged{e, map[string]string{}}
	for key, value := range all.Fields {
		if name := strings.TrimPrefix(event.FieldName(key), "UPDATECTL_"); name != "EVENT" {
			l.Fields[name] = fmt.Sprint(value)
		}
	}
	c.seen(l)
	return nil
}

// Page has the fields that the page lists for each event, in that order.
type Page map[string][]string

// page is where the project has it.
const page = "docs/events.md"

// ReadPage reads the page.
func ReadPage(t testing.TB) Page {
	t.Helper()
	p, err := readPage()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// readPage looks for the page in the directories above that of the test.
func readPage() (Page, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, page))
	if err != nil {
		return nil, err
	}
	p := Page{}
	row := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|.*\\|(.*)\\|$")
	name := regexp.MustCompile("`([A-Z_]+)`")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		p[m[1]] = []string{}
		for _, n := range name.FindAllStringSubmatch(m[2], -1) {
			p[m[1]] = append(p[m[1]], n[1])
		}
	}
	if len(p) == 0 {
		return nil, fmt.Errorf("%s lists no events", page)
	}
	return p, nil
}

// mayLack are the fields that an event of this kind has only where they apply.
var mayLack = map[event.Event]string{event.Unhealthy: "TO"}

// Check returns how an event differs from what the page says.
func (p Page) Check(l Logged) error {
	want := p[l.Event.String()]
	for _, name := range want {
		if _, has := l.Fields[name]; !has && name != mayLack[l.Event] {
			return fmt.Errorf("%v lacks %s, which %s lists: %v", l.Event, name, page, l.Fields)
		}
	}
	for name := range l.Fields {
		if !slices.Contains(want, name) {
			return fmt.Errorf("%v has %s, which %s does not list: %v", l.Event, name, page, l.Fields)
		}
	}
	return nil
}

// sentences are the fields that people read, and that may be reworded.
var sentences = []string{"REASON", "ERROR", "WAITS_FOR"}

// Line returns an event and the values of its fields in the order of the page, without sentences and what is empty.
func (p Page) Line(l Logged) string {
	line := l.Event.String()
	for _, name := range p[l.Event.String()] {
		if value := l.Fields[name]; value != "" && (!slices.Contains(sentences, name) ||
			l.Event == event.Waiting && name == "REASON") { // there it is one word
			line += " " + value
		}
	}
	return line
}
