package registry

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// FuzzChallenge reads what a registry in an intranet challenges with: the registry client sees an address at the
// registry, and a request to that goes where the challenge said, with the same query.
func FuzzChallenge(f *testing.F) {
	for _, c := range []string{
		`Bearer realm="https://git.corp.lan/jwt/auth?account=x",service="s",scope="repository:os:pull"`,
		`bearer scope="a",realm="https://git.corp.lan/a%2Fb"`, `Bearer realm=""`, `Basic realm="x"`,
		`Bearer realm="https://a@[fd00::1%25eth0]:1/#x"`, `Bearer realm="http://git.corp.lan:x/"`, `Bearer realm="//x"`,
	} {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, challenge string) {
		i, _ := challenged(t, "10.0.0.5:443", func(*http.Request) string { return "" })
		req := httptest.NewRequest(http.MethodGet, "https://registry.corp.lan/v2/", nil)
		rewritten, realm := i.rewrite(req, challenge)
		if realm == nil {
			if rewritten != challenge {
				t.Errorf("%q became %q", challenge, rewritten)
			}
			return
		}
		m := bearerRealm.FindStringSubmatch(rewritten)
		if m == nil {
			t.Fatalf("%q has no realm", rewritten)
		}
		seen, err := url.Parse(m[2])
		if err != nil || seen.Host != req.URL.Host || seen.Scheme != "https" {
			t.Fatalf("the client sees the realm %q: %v", m[2], err)
		}
		got := i.realmIn(seen)
		if got == nil || got.Host != realm.Host || got.EscapedPath() != realm.EscapedPath() ||
			got.RawQuery != realm.RawQuery {
			t.Errorf("the token service is %s, and in the challenge %s", got, realm)
		}
	})
}

// FuzzContentRange: a body never starts behind what was requested.
func FuzzContentRange(f *testing.F) {
	f.Add("bytes 5-9/10", int64(7))
	f.Add("bytes -1-9/10", int64(0))
	f.Add("bytes 9223372036854775808-", int64(1))
	f.Fuzz(func(t *testing.T, header string, offset int64) {
		resp := &http.Response{StatusCode: http.StatusPartialContent, Header: http.Header{"Content-Range": {header}}}
		if at, err := bodyStart(resp, offset); err == nil && (at < 0 || at > offset) {
			t.Errorf("%q starts at %d, and %d was requested", header, at, offset)
		}
	})
}
