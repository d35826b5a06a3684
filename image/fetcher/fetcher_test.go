package fetcher

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	distribution "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/registry"
)

func TestMain(m *testing.M) {
	if os.Args[0] == argument0 && strings.HasPrefix(os.Args[1], probeName) {
		probe(os.Args[1])
	}
	Main()
	os.Exit(m.Run())
}

// newRepository returns the repository of a server.
func newRepository(t *testing.T, handler http.HandlerFunc, find auth.CredentialFunc) *Repository {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	ref, err := distribution.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/os/server:stable")
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(ref, registry.Options{PlainHTTP: true, Credential: find})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.process != nil {
			r.process.control.Close()
		}
	})
	return r
}

// random returns content and its descriptor.
func random(n int) ([]byte, ocispec.Descriptor) {
	content := make([]byte, n)
	rand.Read(content)
	return content, ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(n)}
}

// TestAFetcherThatDies: what it was sending is an ErrUnreachable that says how it ended, and the next request starts
// another one.
func TestAFetcherThatDies(t *testing.T) {
	content, d := random(8 << 20)
	r := newRepository(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(content) }, nil)
	body, _, err := r.Open(t.Context(), d, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	first := r.process
	if _, err := io.ReadFull(body, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(first.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, body)
	wantError(t, err, failure.ErrUnreachable, "the process that fetches has ended: signal: killed")
	again, _, err := r.Open(t.Context(), d, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	got, err := io.ReadAll(again)
	second := r.process
	if err != nil || !bytes.Equal(got, content) || second.pid == first.pid {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := unix.Kill(second.pid, unix.SIGKILL); err != nil { // with nothing to do
		t.Fatal(err)
	}
	<-second.done
	if _, _, err := r.Open(t.Context(), d, false, 0); err != nil || r.process == second {
		t.Errorf("after one that ended meanwhile: %v", err)
	}
}

// TestARequestThatIsLeft: the registry sees it when nobody reads a body any more; and a fetcher that is left ends.
func TestARequestThatIsLeft(t *testing.T) {
	left := make(chan struct{})
	r := newRepository(t, func(w http.ResponseWriter, req *http.Request) {
		w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		<-req.Context().Done()
		close(left)
	}, nil)
	_, d := random(100)
	body, _, err := r.Open(t.Context(), d, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := r.process
	r.leave(p) // its requests go on
	if n, err := io.ReadFull(body, make([]byte, 1)); n != 1 {
		t.Error(err)
	}
	select {
	case <-p.done:
		t.Error("it ended with a request under way")
	default:
	}
	body.Close()
	<-left
	<-p.done
	if !strings.HasPrefix(p.reason, "exit status 0") {
		t.Errorf("it ended with %s", p.reason)
	}
}

// TestLogins: root answers with the credentials for the registry, or with why it has none.
func TestLogins(t *testing.T) {
	challenge := func(w http.ResponseWriter, req *http.Request) {
		if user, password, _ := req.BasicAuth(); user != "alice" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Write([]byte("content"))
	}
	d := ocispec.Descriptor{Digest: digest.FromString("content"), Size: 7}
	hosts := ""
	r := newRepository(t, challenge, func(_ context.Context, host string) (auth.Credential, error) {
		hosts += host
		return auth.Credential{Username: "alice", Password: "secret"}, nil
	})
	body, _, err := r.Open(t.Context(), d, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); string(got) != "content" || err != nil || hosts != r.ref.Host() {
		t.Errorf("got %q, %v; asked for the login of %s", got, err, hosts)
	}
	r = newRepository(t, challenge, func(context.Context, string) (auth.Credential, error) {
		return auth.EmptyCredential, errors.Join(failure.ErrAuth, errors.New("the file is everybody's"))
	})
	_, _, err = r.Open(t.Context(), d, false, 0)
	wantError(t, err, failure.ErrAuth, "the file is everybody's")
}

// TestOnlyItsOwnLogins: a fetcher gets the logins of its registry and of one token service.
func TestOnlyItsOwnLogins(t *testing.T) {
	find := onlyFor(distribution.Reference{Registry: "registry.example.org", Repository: "os"},
		func(_ context.Context, host string) (auth.Credential, error) {
			return auth.Credential{Username: host}, nil
		})
	for _, c := range []struct {
		host string
		ok   bool
	}{
		{"registry.example.org", true}, {"token.example.org", true}, {"git.example.org", false},
		{"token.example.org", true}, {"registry.example.org", true},
	} {
		got, err := find(t.Context(), c.host)
		if c.ok != (err == nil) || c.ok && got.Username != c.host || !c.ok && !errors.Is(err, failure.ErrAuth) {
			t.Errorf("%s: %v, %v", c.host, got, err)
		}
	}
}

// TestEnvironment: a fetcher gets the proxies, and nothing else that somebody may have set.
func TestEnvironment(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	env := strings.Join(environment(), "\n")
	if !strings.Contains(env, "HTTPS_PROXY=http://proxy.example.org:3128") || strings.Contains(env, "secret") {
		t.Errorf("environment %q", env)
	}
}

// hostile returns a repository whose fetcher answers each request with these bytes.
func hostile(t *testing.T, answer []byte) *Repository {
	t.Helper()
	control, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	end, err := net.FileConn(theirs)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{control: control, done: make(chan struct{}), reason: "exit status 7"}
	answered := sync.OnceFunc(func() { close(p.done) })
	t.Cleanup(func() { control.Close(); end.Close() })
	go func() {
		for {
			conn, err := receiveConn(end.(*net.UnixConn))
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				readFrame(conn, asked)
				conn.Write(answer)
				conn.(*net.UnixConn).CloseWrite()
				answered()
				io.Copy(io.Discard, conn) // until root has gone
			}()
		}
	}()
	ref := distribution.Reference{Registry: "registry.example.org", Repository: "os", Reference: "stable"}
	return &Repository{ref: ref, process: p, stall: time.Minute, rate: 1, credential: onlyFor(ref,
		func(context.Context, string) (auth.Credential, error) { return auth.EmptyCredential, nil })}
}

// frame returns a frame, also one that must not be.
func frame(k kind, content string) []byte {
	var b bytes.Buffer
	sealFrame(&b, k, append(make([]byte, headerSize), content...))
	return b.Bytes()
}

const goodDescriptor = `{"media_type":"x/y","size":1,"digest":"sha256:` +
	`e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}`

// TestAHostileFetcher: whatever it says, root refuses it as a failing registry, and with bounds.
func TestAHostileFetcher(t *testing.T) {
	one := frame(found, goodDescriptor)
	for name, c := range map[string]struct {
		answer   []byte
		question question
		says     string
	}{
		"nothing":              {nil, resolve, "has ended: exit status 7"},
		"half a header":        {[]byte("f\x00"), resolve, "has ended: exit status 7"},
		"an unknown kind":      {frame('x', ""), resolve, `the kind 'x' is unknown`},
		"a kind at this time":  {frame(data, "x"), resolve, `the kind 'd' comes at the wrong time`},
		"a large frame":        {frame(found, strings.Repeat(" ", 16<<10+1)), referrers, "16385 bytes, more than 16384"},
		"no JSON":              {frame(found, "{"), referrers, "unexpected end of JSON input"},
		"no digest":            {frame(found, `{"digest":"x","size":1}`), referrers, `the digest is "x"`},
		"another algorithm":    {frame(found, `{"digest":"md5:00","size":1}`), referrers, `the digest is "md5:00"`},
		"a negative size":      {frame(found, strings.Replace(goodDescriptor, ":1", ":-1", 1)), referrers, "the size is -1"},
		"two answers":          {append(bytes.Clone(one), one...), resolve, "one too many"},
		"an endless list":      {bytes.Repeat(one, maxFound+1), referrers, "one too many"},
		"no answer":            {frame(ended, `{}`), resolve, "without a digest"},
		"no body":              {frame(ended, `{}`), open, "ends before it begins"},
		"a body of the future": {frame(opened, `{"at":11}`), open, "it begins at 11"},
		"a negative offset":    {frame(opened, `{"at":-1}`), open, "it begins at -1"},
		"empty parts":          {append(frame(opened, `{}`), frame(data, "")...), open, "no part of a body"},
		"a list in a body":     {append(frame(opened, `{}`), one...), open, "no part of a body"},
		"a body that is cut":   {append(frame(opened, `{}`), frame(data, "xyz")[:6]...), open, "has ended: exit status 7"},
		"greed": {bytes.Repeat(frame(loginFor, "registry.example.org"), maxLogins+1), resolve,
			"credentials again and again"},
		"control characters": {frame(ended, `{"text":"a\u001b[2Jb\nc"}`), resolve, `a\x1b[2Jb` + "\n  c"},
		"a long text":        {frame(ended, `{"text":"`+strings.Repeat("x", 4000)+`"}`), resolve, "xxx…"},
		"an unknown error":   {frame(ended, `{"kinds":["agent"]}`), resolve, "no reason is given"},
	} {
		t.Run(name, func(t *testing.T) {
			r := hostile(t, c.answer)
			var err error
			switch c.question {
			case resolve:
				_, err = r.Resolve(t.Context(), "")
			case referrers:
				_, err = r.Referrers(t.Context(), digest.FromString("x"))
			case open:
				var b io.ReadCloser
				if b, _, err = r.Open(t.Context(), ocispec.Descriptor{Digest: digest.FromString("x"), Size: 20}, false,
					10); err == nil {
					_, err = io.Copy(io.Discard, b)
					b.Close()
				}
			}
			wantError(t, err, failure.ErrUnreachable, c.says)
			if len(err.Error()) > maxText+200 {
				t.Errorf("a text of %d bytes", len(err.Error()))
			}
		})
	}
}

// TestKindsOfErrors: what callers decide by survives the way.
func TestKindsOfErrors(t *testing.T) {
	for name, is := range errorKinds {
		content := frame(ended, `{"kinds":["`+name+`"],"text":"as it is said"}`)
		_, err := hostile(t, content).Resolve(t.Context(), "")
		wantError(t, err, is, "as it is said")
		sent := outcomeOf(errors.Join(is, errors.New("more")))
		if back := sent.err(); !errors.Is(back, is) || !strings.Contains(back.Error(), "more") {
			t.Errorf("%s became %v", name, back)
		}
	}
}

// TestASilentFetcherIsLeft: a body that does not go on is given up in root as well.
func TestASilentFetcherIsLeft(t *testing.T) {
	content, d := random(100)
	r := newRepository(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(content) }, nil)
	r.stall = 200 * time.Millisecond
	body, _, err := r.Open(t.Context(), d, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	stopped, _ := random(8 << 20)
	content, d = stopped, ocispec.Descriptor{Digest: digest.FromBytes(stopped), Size: 8 << 20}
	body, _, err = r.Open(t.Context(), d, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if err := unix.Kill(r.process.pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(r.process.pid, unix.SIGKILL)
	_, err = io.Copy(io.Discard, body)
	if err == nil || !strings.Contains(err.Error(), "no data arrived for too long") {
		t.Errorf("got %v", err)
	}
}

func wantError(t *testing.T, err, want error, say string) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), say) {
		t.Fatalf("got %v, want %v with %q", err, want, say)
	}
}

// TestAProgramForRootAlone: a program that a fetcher may not run is told from other reasons.
func TestAProgramForRootAlone(t *testing.T) {
	wantError(t, cannotStart(&os.PathError{Op: "fork/exec", Path: "/proc/self/exe", Err: unix.EACCES}), ErrForRootAlone,
		"permission denied")
	if err := cannotStart(unix.EPERM); errors.Is(err, ErrForRootAlone) {
		t.Errorf("for another reason: %v", err)
	}
}
