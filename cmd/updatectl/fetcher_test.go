package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/updatectl/updatectl/verify/printable"
)

// TestRegistriesAreAskedWithoutPrivileges: every connection to a registry is a fetcher's, and what goes wrong there
// ends as it would in root itself: with its exit code, its sentence and its hint.
func TestRegistriesAreAskedWithoutPrivileges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run the tests as root")
	}
	p := &publisher{dir: t.TempDir()}
	var mu sync.Mutex
	var owners []string
	var login string
	handler := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			owners = append(owners, ownerOf(t, req.RemoteAddr))
			if user, _, ok := req.BasicAuth(); ok {
				login = user
			} else if status == http.StatusOK {
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				status = http.StatusUnauthorized
			}
			w.WriteHeader(status)
		}
	}
	missing, refusing := httptest.NewServer(handler(404)), httptest.NewServer(handler(403))
	gone, private := httptest.NewServer(handler(404)), httptest.NewUnstartedServer(nil)
	private.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, _, ok := req.BasicAuth(); ok {
			handler(404)(w, req)
		} else {
			handler(200)(w, req)
		}
	})
	private.Start()
	unknown := httptest.NewUnstartedServer(handler(404))
	unknown.Config.ErrorLog = nil
	unknown.StartTLS()
	for _, s := range []*httptest.Server{missing, refusing, private, unknown} {
		t.Cleanup(s.Close)
	}
	gone.Close()
	host := func(s *httptest.Server) string { _, host, _ := strings.Cut(s.URL, "://"); return host }
	config := fmt.Sprintf("[source]\nplain-http = [%q, %q, %q, %q]\n[verify]\nkeys = [%q]\n", host(missing),
		host(refusing), host(gone), host(private), "/etc/updatectl/keys/release.pub")
	if err := errors.Join(p.makeKey(), p.writePublicKeys(), p.configure("host", "release.pub", ""),
		os.WriteFile(filepath.Join(p.dir, "host/etc/updatectl/updatectl.toml"), []byte(config), 0o644),
		os.WriteFile(filepath.Join(p.dir, "auth.json"),
			[]byte(`{"auths":{"`+host(private)+`":{"auth":"YWxpY2U6cHc="}}}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, host string
		says       []string
	}{
		{"no such tag", host(missing), []string{"not found", "check the name and the tag"}},
		{"refused", host(refusing), []string{"access denied", "403", "log in as root"}},
		{"nobody there", host(gone), []string{"connection refused", "the host is unchanged"}},
		{"plain HTTP", "localhost:" + host(missing)[strings.LastIndex(host(missing), ":")+1:],
			[]string{"no TLS", "list its host in [source] plain-http"}},
		{"an unknown authority", host(unknown), []string{"certificate", "update-ca-certificates(8)"}},
		{"with a login that only root can read", host(private), []string{"not found"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stderr bytes.Buffer
			cmd := exec.Command("updatectl", "--root", filepath.Join(p.dir, "host"), "check", "--from", c.host+"/os:v1")
			cmd.Env = append(os.Environ(), "REGISTRY_AUTH_FILE="+filepath.Join(p.dir, "auth.json"))
			cmd.Stderr = &stderr
			var status *exec.ExitError
			if err := cmd.Run(); !errors.As(err, &status) || status.ExitCode() != exitUnreachable {
				t.Errorf("it ended with %v, want %d", err, exitUnreachable)
			}
			for _, say := range c.says {
				if !strings.Contains(printable.Unwrap(stderr.String()), say) {
					t.Errorf("it does not say %q:\n%s", say, stderr.String())
				}
			}
		})
	}
	t.Run("a program for root alone", func(t *testing.T) {
		program, err := exec.LookPath("updatectl")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		own := filepath.Join(p.dir, "updatectl")
		if err := os.WriteFile(own, text, 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(own, "--root", filepath.Join(p.dir, "host"), "check", "--from", host(missing)+"/os:v1")
		out, err := cmd.CombinedOutput()
		var status *exec.ExitError
		if says := printable.Unwrap(string(out)); !errors.As(err, &status) || status.ExitCode() != exitError ||
			!strings.Contains(says, "only root may run this program") || !strings.Contains(says, "chmod a+rx") {
			t.Errorf("it ended with %v:\n%s", err, out)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(owners)
	if got := slices.Compact(owners); len(got) != 1 || got[0] != "65533" || login != "alice" {
		t.Errorf("users %q have asked, with the login of %q", got, login)
	}
}

// ownerOf returns the user whose socket has a local address on this machine.
func ownerOf(t *testing.T, address string) string {
	var a, b, c, d, port int
	if _, err := fmt.Sscanf(address, "%d.%d.%d.%d:%d", &a, &b, &c, &d, &port); err != nil {
		t.Error(err)
	}
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		t.Error(err)
		return ""
	}
	defer f.Close()
	local := fmt.Sprintf("%02X%02X%02X%02X:%04X", d, c, b, a, port)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 7 && fields[1] == local {
			return fields[7]
		}
	}
	return "none"
}
