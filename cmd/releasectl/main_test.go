package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/updatectl/updatectl/image/patches/patchestest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"releasectl": measured})
}

// TestScripts runs testdata/*.txt. Each has two registries, $REGISTRY with the referrers API and $OLD_REGISTRY without
// it, and $KEYS with cosign.key (whose password is "release") and cosign.pub.
func TestScripts(t *testing.T) {
	keys, err := filepath.Abs("../../verify/sign/testdata")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			quiet := registry.Logger(log.New(io.Discard, "", 0))
			modern := serve(e, registry.New(quiet, registry.WithReferrersSupport(true)))
			old := serve(e, registry.New(quiet))
			e.Setenv("REGISTRY", modern)
			e.Setenv("OLD_REGISTRY", old)
			e.Setenv("KEYS", keys)
			e.Setenv("COSIGN_PASSWORD", "release")
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exitcode": expectExit, "module": makeModule, "says": says,
		},
	})
}

// serve starts a registry and returns its host and port.
func serve(e *testscript.Env, handler http.Handler) string {
	s := httptest.NewServer(handler)
	e.Defer(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// expectExit runs "exitcode N releasectl …". The "!" of scripts only distinguishes failure from success.
func expectExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N program args...")
	}
	script := filepath.Join(ts.Getenv("WORK"), "code.sh")
	ts.Check(os.WriteFile(script, []byte("\"$@\"\necho $? > \"$WORK/code\"\n"), 0o644))
	ts.Check(ts.Exec("sh", append([]string{script}, args[1:]...)...))
	if got := strings.TrimSpace(ts.ReadFile("code")); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// says runs "says REGEXP", which must match stderr after lines that were broken to fit the terminal are joined again.
func says(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: says REGEXP")
	}
	joined := strings.ReplaceAll(ts.ReadFile("stderr"), "\n"+indent, " ")
	if !regexp.MustCompile(`(?m)` + args[0]).MatchString(joined) {
		ts.Fatalf("no match for %q in stderr", args[0])
	}
}

// makeModule runs "module FILE NAME RELEASE [INFO]", which writes a live patch. INFO replaces .modinfo, with ; for
// zero bytes.
func makeModule(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: module FILE NAME RELEASE [INFO]")
	}
	m := patchestest.Module{Name: args[1], Release: args[2]}
	if len(args) > 3 {
		m.Info = strings.ReplaceAll(args[3], ";", "\x00")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), m.Bytes(), 0o644))
}
