package registry

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"time"

	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// How long a server may take for the first byte of its answer. One that was sent a blob may check it first.
const (
	connectTime     = 15 * time.Second
	tlsTime         = 15 * time.Second
	headerTime      = 30 * time.Second
	writeHeaderTime = 5 * time.Minute
)

const (
	// requestRetries is how often a request is repeated after a timeout, a reset, a 429 or a 5xx answer: within about two
	// seconds, unless the server wants to be left alone for longer. What writes is repeated more often, within about
	// seven seconds: nothing else would try again.
	requestRetries = 3
	writeRetries   = 5
	retryMin       = 200 * time.Millisecond
	retryMax       = 2 * time.Second
	// maxHeader bounds the header of an answer, in bytes. Tokens in a redirect take a few KiB.
	maxHeader = 256 << 10
)

// Options say how a registry is asked.
type Options struct {
	PlainHTTP   bool          // talk to it without TLS; otherwise it cannot redirect to a server without TLS
	Authorities []byte        // certificate authorities, as PEM; nil means those of [Authorities]
	UserAgent   string        // what registries see in their logs
	Stall       time.Duration // how long a body may make no progress; 0 means one minute
	Rate        int64         // bytes per second that a body must have over that time; 0 means DefaultRate
	Writes      bool          // the registry is written to, which takes it longer
	Impatient   bool          // another registry can be asked: one that is busy is not waited for
	// Credential finds the credentials for a host; nil means [Credentials].
	Credential auth.CredentialFunc
}

// Client returns a client for a registry, with the credentials for a repository. A server that does not answer, or does
// not listen, is given up: connecting, the header of an answer, and the bodies in both directions have their times. The
// error is an ErrUnreachable.
func Client(ref registry.Reference, o Options) (*auth.Client, error) {
	if o.Authorities == nil {
		var err error
		if o.Authorities, err = Authorities(ref.Registry); err != nil {
			return nil, err
		}
	}
	if o.Credential == nil {
		o.Credential = Credentials(ref)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(o.Authorities)
	header, retries := headerTime, requestRetries
	if o.Writes {
		header, retries = writeHeaderTime, writeRetries
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTime, KeepAlive: connectTime}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: trusted},
		TLSHandshakeTimeout:   tlsTime,
		ResponseHeaderTimeout: header,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // digests are of the stored bytes
		IdleConnTimeout:       time.Minute,

		MaxResponseHeaderBytes: maxHeader,
	}
	var base http.RoundTripper = &watched{
		base: transport, stall: cmp.Or(o.Stall, StallTime), rate: cmp.Or(o.Rate, DefaultRate),
	}
	if !o.PlainHTTP {
		base = onlyTLS{base}
	}
	base = newIntranet(base, o.Credential, lookupHost)
	policy := func() retry.Policy { return patience{retries, o.Impatient, time.Now} }
	c := &auth.Client{
		Client:     &http.Client{Transport: &retry.Transport{Base: base, Policy: policy}},
		Cache:      auth.NewCache(),
		Credential: o.Credential,
	}
	if o.UserAgent != "" {
		c.SetUserAgent(o.UserAgent)
	}
	return c, nil
}
