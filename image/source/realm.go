package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/net/publicsuffix"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// tokenPath is where requests to the token service of an intranet seem to go, for the registry client.
const tokenPath = "/.updatectl/token"

// bearerRealm matches the address of the token service in a registry's challenge.
var bearerRealm = regexp.MustCompile(`(?i)^(Bearer .*\brealm=")([^"]*)(")`)

// intranet is a transport that lets a registry on a private address have its token service on another one, such as
// that of a forge beside it. The registry client refuses every such service, so that a registry on the Internet cannot
// have a host send requests into its own network. That stays so; and the credentials for a registry go to a token
// service on a private address only if both have one domain. One in another domain gets those stored for itself.
type intranet struct {
	base        http.RoundTripper
	credentials auth.CredentialFunc
	lookup      func(ctx context.Context, host string) ([]netip.Addr, error)

	mu    sync.Mutex
	realm *url.URL // of the last challenge that was rewritten
}

// lookupHost resolves a name.
func lookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// RoundTrip sends a request, to the token service if it is meant for that, and makes the registry client ask there.
func (i *intranet) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Path == tokenPath {
		return i.askTokenService(req)
	}
	resp, err := i.base.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	for n, challenge := range resp.Header.Values("WWW-Authenticate") {
		m := bearerRealm.FindStringSubmatchIndex(challenge)
		if m == nil {
			continue
		}
		realm, err := url.Parse(challenge[m[4]:m[5]])
		if err != nil || !i.isIntranet(req, realm) {
			continue
		}
		i.mu.Lock()
		i.realm = realm
		i.mu.Unlock()
		seeming := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: tokenPath, RawQuery: realm.RawQuery}
		resp.Header["Www-Authenticate"][n] = challenge[:m[4]] + seeming.String() + challenge[m[5]:]
	}
	return resp, nil
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

var errStranger = errors.New("the token service is in another domain than the registry, so it is not shown the " +
	"registry's credentials; log in to it by its own name")

// askTokenService sends a request to the token service that the registry has named.
func (i *intranet) askTokenService(req *http.Request) (*http.Response, error) {
	i.mu.Lock()
	realm := i.realm
	i.mu.Unlock()
	if realm == nil {
		return nil, fmt.Errorf("%w: there is no token service", ErrAuth)
	}
	ask := req.Clone(req.Context())
	ask.URL.Scheme, ask.URL.Host, ask.URL.Path, ask.Host = realm.Scheme, realm.Host, realm.Path, realm.Host
	if !sameDomain(req.URL.Hostname(), realm.Hostname()) {
		if req.Method != http.MethodGet { // with credentials in its body
			return nil, fmt.Errorf("%w: %s: %w", ErrAuth, realm.Host, errStranger)
		}
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
		return nil, fmt.Errorf("%w: the token service %s redirects to %q", ErrAuth, realm.Host,
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
