package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/image/failure"
)

// TestTokenServiceBeside: a registry on a private address may have its token service on another one. That is not shown
// the credentials for the registry, but those that are stored for itself.
func TestTokenServiceBeside(t *testing.T) {
	r := newTestRegistry(t)
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
			!slices.Equal(q["scope"], []string{"repository:os/server:pull"}) {
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
	realm, scope := service.URL+"/jwt/auth?account=x", ""
	admitted := ""
	r.hook = func(w http.ResponseWriter, req *http.Request) bool {
		if req.Header.Get("Authorization") == "Bearer "+admitted+"'s token" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="s"`+scope)
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
		d, err := r.open(t).Resolve(t.Context(), "")
		if err == nil && d.Digest != r.digest {
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
	realm, scope = realm+"&scope=repository:secret:pull", `,scope="repository:secret:pull,push"`
	if err := resolve(map[string]string{l.Addr().String(): "bob"}); err != nil || shown != "bob" {
		t.Errorf("a registry that asks for a token for another repository: %v, shown %q", err, shown)
	}
	answer = "http://127.0.0.3:1/"
	wantError(t, resolve(nil), failure.ErrAuth, "redirects to")
	answer, realm = "", "http://169.254.169.254/latest/meta-data"
	wantError(t, resolve(nil), failure.ErrUnreachable, "169.254.169.254")
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
	i := newIntranet(nil, nil, func(_ context.Context, host string) (list []netip.Addr, err error) {
		for _, a := range strings.Fields(hosts[host]) {
			list = append(list, netip.MustParseAddr(a))
		}
		if list == nil {
			err = fmt.Errorf("no such host")
		}
		return list, err
	})
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

// roundTrip is a transport in a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (r roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }

// at is a connection to an address.
type at struct {
	net.Conn
	address string
}

func (a at) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a.address)) }

// challenged is a transport to a registry at an address, which names a realm. It returns where requests arrive.
func challenged(t *testing.T, address string, realm func(*http.Request) string) (*intranet, *[]string) {
	arrived := &[]string{}
	return newIntranet(roundTrip(func(req *http.Request) (*http.Response, error) {
		if trace := httptrace.ContextClientTrace(req.Context()); trace != nil {
			trace.GotConn(httptrace.GotConnInfo{Conn: at{address: address}})
		}
		*arrived = append(*arrived, req.Method+" "+req.URL.String())
		w := httptest.NewRecorder()
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm(req)+`"`)
		w.WriteHeader(http.StatusUnauthorized)
		return w.Result(), nil
	}), nil, func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("10.0.0.5")}, nil
	}), arrived
}

// send sends a request, and returns the realm that the registry client sees in the answer.
func send(t *testing.T, i *intranet, method, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := i.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_, realm, _ := strings.Cut(resp.Header.Get("WWW-Authenticate"), `realm="`)
	return strings.TrimSuffix(realm, `"`)
}

// TestEachChallengeHasItsRealm: a request for a token goes to the realm of its own challenge, also when another one
// has come since.
func TestEachChallengeHasItsRealm(t *testing.T) {
	i, arrived := challenged(t, "10.0.0.5:443", func(req *http.Request) string {
		return "https://" + req.URL.Query().Get("n") + ".corp.lan:8443/a%2Fb?n=1"
	})
	one := send(t, i, http.MethodGet, "https://registry.corp.lan/v2/?n=one")
	two := send(t, i, http.MethodGet, "https://registry.corp.lan/v2/?n=two")
	*arrived = nil
	send(t, i, http.MethodGet, one+"&service=s")
	send(t, i, http.MethodPost, two)
	want := []string{"GET https://one.corp.lan:8443/a%2Fb?n=1&service=s", "POST https://two.corp.lan:8443/a%2Fb?n=1"}
	if !slices.Equal(*arrived, want) {
		t.Errorf("%q, want %q", *arrived, want)
	}
}

// TestARegistryOnTheInternetStaysOutside: what its name resolves to may change from one moment to the next, so the
// address of the connection counts, too.
func TestARegistryOnTheInternetStaysOutside(t *testing.T) {
	for address, reached := range map[string]bool{"93.184.216.34:443": false, "10.0.0.5:443": true} {
		const realm = "https://git.corp.lan/jwt/auth"
		i, _ := challenged(t, address, func(*http.Request) string { return realm })
		if got := send(t, i, http.MethodGet, "https://registry.example.com/v2/"); (got != realm) != reached {
			t.Errorf("at %s, the client sees the realm %s", address, got)
		}
	}
}

// TestOnlyTheClientAsksForTokens: no server can redirect a request to a token service, where it would bring the
// credentials for that.
func TestOnlyTheClientAsksForTokens(t *testing.T) {
	r := newTestRegistry(t)
	asked := 0
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	service := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(
		func(w http.ResponseWriter, req *http.Request) {
			asked++
			fmt.Fprint(w, `{"token":"t"}`)
		})}}
	service.Start()
	t.Cleanup(service.Close)
	redirected := false
	r.hook = func(w http.ResponseWriter, req *http.Request) bool {
		switch {
		case strings.HasPrefix(req.URL.Path, "/.updatectl"):
			return false
		case req.Header.Get("Authorization") != "Bearer t":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+service.URL+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			redirected = true
			http.Redirect(w, req, "/.updatectl/token?all=1", http.StatusTemporaryRedirect)
		}
		return true
	}
	_, err = r.open(t).Resolve(t.Context(), "")
	wantError(t, err, failure.ErrNotFound, "")
	if !redirected || asked != 1 {
		t.Errorf("redirected: %v; the token service was asked %d times", redirected, asked)
	}
}
