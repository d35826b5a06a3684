package registry

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/updatectl/updatectl/image/failure"
)

// TestMain keeps the tests from the credentials of whoever runs them.
func TestMain(m *testing.M) {
	for _, name := range []string{"HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"} {
		os.Setenv(name, "/nonexistent")
	}
	m.Run()
}

func TestCredentials(t *testing.T) {
	r := newTestRegistry(t)
	var want string
	r.hook = func(w http.ResponseWriter, req *http.Request) bool {
		if user, password, _ := req.BasicAuth(); user+":"+password == want {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	write := func(path, key, auth string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf(`{"auths":{"other.example.org":{"auth":"eDp5"},%q:{"auth":%q}}}`, key, auth)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const alice, bob = "YWxpY2U6cHc=", "Ym9iOnB3" // alice:pw, bob:pw
	for _, c := range []struct {
		name, want string
		setup      func(dir string)
	}{
		{"docker", "alice:pw", func(dir string) {
			t.Setenv("DOCKER_CONFIG", dir)
			write(dir+"/config.json", r.host(), alice)
		}},
		{"podman", "alice:pw", func(dir string) {
			t.Setenv("XDG_RUNTIME_DIR", dir)
			write(dir+"/containers/auth.json", r.host(), alice)
		}},
		{"named file first", "bob:pw", func(dir string) {
			t.Setenv("DOCKER_CONFIG", dir)
			write(dir+"/config.json", r.host(), alice)
			t.Setenv("REGISTRY_AUTH_FILE", dir+"/named.json")
			write(dir+"/named.json", r.host(), bob)
		}},
		{"by namespace", "bob:pw", func(dir string) {
			t.Setenv("REGISTRY_AUTH_FILE", dir+"/named.json")
			write(dir+"/named.json", r.host()+"/os", bob)
		}},
		{"helper", "carol:secret", func(dir string) {
			helper := "#!/bin/sh\nread host\necho " +
				"'{\"ServerURL\":\"'$host'\",\"Username\":\"carol\",\"Secret\":\"secret\"}'\n"
			if err := os.WriteFile(dir+"/docker-credential-test", []byte(helper), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			t.Setenv("DOCKER_CONFIG", dir)
			if err := os.WriteFile(dir+"/config.json", []byte(`{"credsStore":"test"}`), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range []string{"DOCKER_CONFIG", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE"} {
				t.Setenv(name, t.TempDir()+"/none")
			}
			want = c.want
			c.setup(t.TempDir())
			if d, err := r.open(t).Resolve(t.Context(), ""); err != nil || d.Digest != r.digest {
				t.Errorf("got %+v, %v", d, err)
			}
		})
	}
	t.Run("wrong", func(t *testing.T) {
		want = "nobody:x"
		dir := t.TempDir()
		t.Setenv("REGISTRY_AUTH_FILE", dir+"/a.json")
		write(dir+"/a.json", r.host(), alice)
		_, err := r.open(t).Resolve(t.Context(), "")
		wantError(t, err, failure.ErrAuth, "401")
	})
	t.Run("broken file", func(t *testing.T) {
		file := t.TempDir() + "/a.json"
		t.Setenv("REGISTRY_AUTH_FILE", file)
		if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := r.open(t).Resolve(t.Context(), "")
		wantError(t, err, failure.ErrAuth, file)
	})
}

// FuzzCredentials reads credentials files.
func FuzzCredentials(f *testing.F) {
	seeds := []string{`{"auths":{"registry.example.org/os":{"auth":"YTpi"}}}`, `{"auths":{"":null}}`, `{"auths":[]}`}
	if len(seeds) == 0 {
		f.Fatal("the corpus is empty")
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	file := filepath.Join(f.TempDir(), "auth.json")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		keys, _, err := credentialKeys(file)
		if (err == nil) != (keys != nil) {
			t.Errorf("keys %v, %v", keys, err)
		}
	})
}
