package source

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestTokenServiceBeside: a registry on a private address may have its token service on another one. That is not shown
// the credentials for the registry, but those that are stored for itself.
func TestTokenServiceBeside(t *testing.T) {
	r := newTestRegistry(t)
	m := r.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{}, "stable")
	answer, shown := "", ""
	service := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		shown, _, _ = req.BasicAuth()
		q := req.URL.Query()
		if answer != "" {
			w.Header().Set("Location", answer)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		if req.URL.Path != "/jwt/auth" || q.Get("account") != "x" || q.Get("service") != "s" ||
			q.Get("scope") != "repository:os/server:pull" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, `{"token":"%s's token"}`, shown)
	}))
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	service.Listener.Close()
	service.Listener = l
	service.Start()
	t.Cleanup(service.Close)
	realm := service.URL + "/jwt/auth?account=x"
	admitted := ""
	r.hook = func(w http.ResponseWriter, req *http.Request) bool {
		if req.Header.Get("Authorization") == "Bearer "+admitted+"'s token" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	resolve := func(logins map[string]string) error {
		auths := map[string]map[string]string{}
		for host, user := range logins {
			auths[host] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":secret"))}
		}
		text, err := json.Marshal(map[string]any{"auths": auths})
		file := filepath.Join(t.TempDir(), "auth.json")
		if err == nil {
			err = os.WriteFile(file, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("REGISTRY_AUTH_FILE", file)
		shown = "nobody asked"
		d, err := r.open(t, ":stable").Resolve(t.Context())
		if err == nil && d.Digest != m.Digest {
			t.Errorf("resolved to %s", d.Digest)
		}
		return err
	}
	if err := resolve(nil); err != nil || shown != "" {
		t.Errorf("anonymous: %v, shown %q", err, shown)
	}
	if err := resolve(map[string]string{r.host(): "alice"}); err != nil || shown != "" {
		t.Errorf("in another domain, with the registry's credentials: %v, shown %q", err, shown)
	}
	admitted = "bob"
	if err := resolve(map[string]string{r.host(): "alice", l.Addr().String(): "bob"}); err != nil || shown != "bob" {
		t.Errorf("in another domain, with its own credentials: %v, shown %q", err, shown)
	}
	answer = "http://127.0.0.3:1/"
	wantError(t, resolve(nil), ErrAuth, "redirects to")
	answer, realm = "", "http://169.254.169.254/latest/meta-data"
	wantError(t, resolve(nil), ErrUnreachable, "169.254.169.254")
}

// TestIntranet: which token services are reached that the registry client would refuse, and which are shown the
// registry's credentials.
func TestIntranet(t *testing.T) {
	hosts := map[string]string{
		"registry.corp.lan": "10.0.0.5", "git.corp.lan": "10.0.0.6", "auth.other.lan": "192.168.3.4",
		"db.corp.lan":          "fd00::5",
		"registry.example.com": "93.184.216.34", "auth.example.com": "93.184.216.35", "meta.corp.lan": "169.254.169.254",
		"localhost": "127.0.0.1", "both.corp.lan": "10.0.0.7 93.184.216.36",
	}
	i := &intranet{lookup: func(_ context.Context, host string) (list []netip.Addr, err error) {
		for _, a := range strings.Fields(hosts[host]) {
			list = append(list, netip.MustParseAddr(a))
		}
		if list == nil {
			err = fmt.Errorf("no such host")
		}
		return list, err
	}}
	for _, c := range []struct {
		registry, realm string
		reached, shown  bool
	}{
		{"https://registry.corp.lan", "https://git.corp.lan/jwt/auth", true, true},
		{"https://registry.corp.lan", "https://db.corp.lan", true, true},
		{"https://registry.corp.lan", "https://auth.other.lan", true, false},
		{"https://registry.corp.lan", "http://git.corp.lan/jwt/auth", false, true}, // the registry client refuses it
		{"http://registry.corp.lan", "http://git.corp.lan/jwt/auth", true, true},
		{"https://registry.corp.lan", "https://meta.corp.lan", false, true},
		{"https://registry.corp.lan", "https://localhost", false, false},
		{"https://registry.corp.lan", "https://nowhere.corp.lan", false, true},
		{"https://registry.corp.lan", "https://registry.corp.lan", false, true}, // the registry client asks itself
		{"https://registry.corp.lan", "https://auth.example.com", false, false},
		{"https://registry.example.com", "https://git.corp.lan", false, false},
		{"https://registry.example.com", "https://localhost", false, false},
		{"https://both.corp.lan", "https://git.corp.lan", false, true},
		{"https://localhost", "https://git.corp.lan", true, false},
	} {
		realm, err := url.Parse(c.realm)
		if err != nil {
			t.Fatal(err)
		}
		req := httptest.NewRequest(http.MethodGet, c.registry+"/v2/", nil)
		if got := i.isIntranet(req, realm); got != c.reached {
			t.Errorf("%s for %s is reached: %v", c.realm, c.registry, got)
		}
		if got := sameDomain(req.URL.Hostname(), realm.Hostname()); got != c.shown {
			t.Errorf("%s is shown the credentials of %s: %v", c.realm, c.registry, got)
		}
	}
	for _, pair := range [][2]string{{"10.0.0.5", "10.0.0.6"}, {"a.co.uk", "b.co.uk"}, {"lan", "corp.lan"}} {
		if sameDomain(pair[0], pair[1]) {
			t.Errorf("%s and %s count as one domain", pair[0], pair[1])
		}
	}
}
