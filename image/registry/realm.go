package registry

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/net/publicsuffix"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/updatectl/updatectl/image/failure"
)

// bearerRealm matches the address of the token service in a registry's challenge.
var bearerRealm = regexp.MustCompile(`(?i)^(Bearer .*\brealm=")([^"]*)(")`)

// intranet is a transport that lets a registry on a private address have its token service on another one, such as
// that of a forge beside it. The registry client refuses every such service, so that a registry on the Internet cannot
// have a host send requests into its own network. That stays so; and the credentials for a registry go to a token
// service on a private address only if both have one domain. One in another domain gets those that are stored for it.
//
// The registry client asks at a path of the registry, which contains the address of the token service and a secret. No
// server knows that, so none can redirect another request there.
type intranet struct {
	base        http.RoundTripper
	credentials auth.CredentialFunc
	lookup      lookupFunc
	path        string // starts the paths that stand for token services
}

// lookupFunc resolves the name of a host.
type lookupFunc func(ctx context.Context, host string) ([]netip.Addr, error)

func newIntranet(base http.RoundTripper, credentials auth.CredentialFunc, lookup lookupFunc) *intranet {
	path := "/.updatectl/token/" + rand.Text() + "/"
	return &intranet{base: base, credentials: credentials, lookup: lookup, path: path}
}

// lookupHost resolves a name, or returns an address as it is.
func lookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// RoundTrip sends a request, to the token service if it is meant for that, and makes the registry client ask there.
func (i *intranet) RoundTrip(req *http.Request) (*http.Response, error) {
	if realm := i.realmIn(req.URL); realm != nil {
		return i.askTokenService(req, realm)
	}
	var peer netip.AddrPort
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
		peer, _ = netip.ParseAddrPort(c.Conn.RemoteAddr().String())
	}})
	resp, err := i.base.RoundTrip(req.WithContext(ctx))
	// What the name resolves to can change from one moment to the next, so the address of the connection counts, too.
	if err != nil || resp.StatusCode != http.StatusUnauthorized ||
		!areInside([]netip.Addr{peer.Addr()}, netip.Addr.IsPrivate, netip.Addr.IsLoopback) {
		return resp, err
	}
	for n, challenge := range resp.Header.Values("WWW-Authenticate") {
		resp.Header["Www-Authenticate"][n], _ = i.rewrite(req, challenge)
	}
	return resp, nil
}

// rewrite returns a challenge to a request as the registry client sees it, and the token service if it is another one.
func (i *intranet) rewrite(req *http.Request, challenge string) (string, *url.URL) {
	m := bearerRealm.FindStringSubmatchIndex(challenge)
	if m == nil {
		return challenge, nil
	}
	address := challenge[m[4]:m[5]]
	realm, err := url.Parse(address)
	if err != nil || !i.isIntranet(req, realm) {
		return challenge, nil
	}
	// The registry client adds to the query, so that is not part of what stands for the token service.
	seeming := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, RawQuery: realm.RawQuery,
		Path: i.path + base64.RawURLEncoding.EncodeToString([]byte(address))}
	return challenge[:m[4]] + seeming.String() + challenge[m[5]:], realm
}

// realmIn returns the URL of the token service that a URL stands for, or nil.
func (i *intranet) realmIn(u *url.URL) *url.URL {
	encoded, ok := strings.CutPrefix(u.Path, i.path)
	address, err := base64.RawURLEncoding.DecodeString(encoded)
	if !ok || err != nil {
		return nil
	}
	realm, err := url.Parse(string(address))
	if err != nil {
		return nil
	}
	realm.RawQuery = u.RawQuery
	return realm
}

// isIntranet reports whether a registry and its token service are different hosts of one private network.
func (i *intranet) isIntranet(req *http.Request, realm *url.URL) bool {
	here, there := req.URL.Hostname(), realm.Hostname()
	if realm.Scheme != req.URL.Scheme && realm.Scheme != "https" || there == "" || strings.EqualFold(here, there) {
		return false
	}
	registry, err := i.lookup(req.Context(), here)
	if err != nil {
		return false
	}
	service, err := i.lookup(req.Context(), there)
	return err == nil && areInside(registry, netip.Addr.IsPrivate, netip.Addr.IsLoopback) &&
		(areInside(service, netip.Addr.IsPrivate) || areInside(registry, netip.Addr.IsLoopback) &&
			areInside(service, netip.Addr.IsLoopback))
}

// areInside reports whether each address is of one of the kinds. Those of the machine's cloud, 169.254.0.0/16, never
// are.
func areInside(addresses []netip.Addr, kinds ...func(netip.Addr) bool) bool {
	for _, a := range addresses {
		inside := false
		for _, is := range kinds {
			inside = inside || is(a.Unmap())
		}
		if !inside {
			return false
		}
	}
	return len(addresses) > 0
}

var errStranger = errors.New("the token service is in another domain than the registry, so it does not get the " +
	"registry's credentials; log in to it by its own name")

// askTokenService sends a request to the token service that the registry has named. With credentials that are not the
// registry's, it asks for no more than the request needs: the registry would get a token for whatever it names.
func (i *intranet) askTokenService(req *http.Request, realm *url.URL) (*http.Response, error) {
	ask := req.Clone(req.Context())
	ask.URL, ask.Host = realm, realm.Host
	if !sameDomain(req.URL.Hostname(), realm.Hostname()) {
		if req.Method != http.MethodGet { // with credentials in its body
			return nil, fmt.Errorf("%w: %s: %w", failure.ErrAuth, realm.Host, errStranger)
		}
		q := realm.Query()
		q["scope"] = auth.GetAllScopesForHost(req.Context(), req.URL.Host)
		realm.RawQuery = q.Encode()
		ask.Header.Del("Authorization")
		own, err := i.credentials(req.Context(), realm.Host)
		if err != nil {
			return nil, err
		}
		if own.Username != "" {
			ask.SetBasicAuth(own.Username, own.Password)
		}
	}
	resp, err := i.base.RoundTrip(ask)
	if err == nil && resp.StatusCode/100 == 3 {
		resp.Body.Close()
		return nil, fmt.Errorf("%w: the token service %s redirects to %q", failure.ErrAuth, realm.Host,
			resp.Header.Get("Location"))
	}
	return resp, err
}

// sameDomain reports whether two hosts have one owner, as far as names tell.
func sameDomain(a, b string) bool {
	if strings.EqualFold(a, b) {
		return true
	}
	one, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(a))
	other, err2 := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(b))
	return err == nil && err2 == nil && one == other && net.ParseIP(a) == nil && net.ParseIP(b) == nil
}
