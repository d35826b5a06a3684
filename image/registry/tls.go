package registry

import (
	"fmt"
	"net/http"

	"github.com/updatectl/updatectl/image/failure"
)

// onlyTLS is a transport that refuses plain HTTP. A registry with TLS may redirect, but not to a server without it,
// where everybody in between could read requests and withhold answers. The registry client does not send credentials
// to another host.
type onlyTLS struct{ base http.RoundTripper }

// RoundTrip sends a request if its URL is https.
func (o onlyTLS) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%w: the registry redirects from https to %q, without TLS", failure.ErrUnreachable,
			req.URL.Scheme+"://"+req.URL.Host)
	}
	return o.base.RoundTrip(req)
}
