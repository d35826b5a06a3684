package source

import (
	"fmt"
	"net/http"
)

// onlyTLS is a transport that refuses to go on without TLS: a registry that is spoken to over TLS may redirect, but
// not to where everybody on the way can read what is asked for and hold back what is answered. That credentials do not
// go along to another host is the registry client's part.
type onlyTLS struct{ base http.RoundTripper }

// RoundTrip sends a request, if it is one over TLS.
func (o onlyTLS) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%w: it redirects from https to %q, without TLS", ErrUnreachable, req.URL.Scheme+"://"+req.URL.Host)
	}
	return o.base.RoundTrip(req)
}
