package source

import "testing"

func TestAddress(t *testing.T) {
	for reference, want := range map[string]string{
		"registry.example.org/os/server:stable":   "registry.example.org:443",
		"registry.example.org:5000/os:stable":     "registry.example.org:5000",
		"plain.example.org/os:stable":             "plain.example.org:80",
		"docker.io/library/debian:13":             "registry-1.docker.io:443",
		"oci:/srv/layout:stable":                  "",
		"oci-archive:/srv/registry/os.tar:stable": "",
		"": "",
	} {
		if got := Address(reference, []string{"plain.example.org"}); got != want {
			t.Errorf("%s: %q, want %q", reference, got, want)
		}
	}
}
