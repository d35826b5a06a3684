package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/owned"
)

// credentialFiles lists the files that `docker login` and `podman login` write, in the order in which podman reads
// them. A service has no login session and so no XDG_RUNTIME_DIR; podman then uses /run/containers/UID.
func credentialFiles() []string {
	var files []string
	add := func(dir string, elem ...string) {
		if dir != "" {
			files = append(files, filepath.Join(append([]string{dir}, elem...)...))
		}
	}
	add(os.Getenv("REGISTRY_AUTH_FILE"))
	add(os.Getenv("XDG_RUNTIME_DIR"), "containers/auth.json")
	add("/run/containers", strconv.Itoa(os.Getuid()), "auth.json")
	add(os.Getenv("XDG_CONFIG_HOME"), "containers/auth.json")
	home, err := os.UserHomeDir()
	if err != nil && os.Getuid() == 0 {
		home = "/root" // services of systemd have no HOME
	}
	add(home, ".config/containers/auth.json")
	add(os.Getenv("DOCKER_CONFIG"), "config.json")
	add(home, ".docker/config.json")
	add("/etc/containers/auth.json")
	return files
}

// Credentials returns a function that finds the credentials for a repository. The first file that has some wins. Files
// are read only when the registry asks for credentials.
func Credentials(ref registry.Reference) auth.CredentialFunc {
	return func(ctx context.Context, hostport string) (auth.Credential, error) {
		for _, file := range credentialFiles() {
			cred, err := credentialFrom(ctx, file, hostport, ref)
			if err != nil {
				return auth.EmptyCredential, fmt.Errorf("%w: cannot use the credentials in %s: %w", failure.ErrAuth, file, err)
			}
			if cred != auth.EmptyCredential {
				return cred, nil
			}
		}
		return auth.EmptyCredential, nil
	}
}

// credentialFrom reads credentials from a file, which need not exist. A key can be a registry or, with podman, a
// repository or the beginning of one; the longest key wins.
func credentialFrom(ctx context.Context, file, hostport string, ref registry.Reference) (auth.Credential, error) {
	keys, helpers, err := credentialKeys(file)
	if errors.Is(err, fs.ErrNotExist) {
		return auth.EmptyCredential, nil
	}
	if err != nil {
		return auth.EmptyCredential, err
	}
	store, err := credentials.NewStore(file, credentials.StoreOptions{})
	if err != nil {
		return auth.EmptyCredential, err
	}
	if err := checkHelper(cmp.Or(helpers[hostport], helpers[""])); err != nil {
		return auth.EmptyCredential, err
	}
	if hostport == ref.Host() {
		for name := ref.Registry + "/" +
			ref.Repository; name != ref.Registry; name = name[:strings.LastIndexByte(name, '/')] {
			if keys[name] {
				return store.Get(ctx, name)
			}
		}
	}
	return credentials.Credential(store)(ctx, hostport)
}

// credentialKeys returns the registries and repositories for which a file has credentials, and the credential helpers
// that it names: those of single registries, and under "" that of all others.
func credentialKeys(file string) (keys map[string]bool, helpers map[string]string, err error) {
	data, err := readSettings(file)
	if err != nil {
		return nil, nil, err
	}
	var config struct {
		Auths   map[string]json.RawMessage `json:"auths"`
		Helpers map[string]string          `json:"credHelpers"`
		Helper  string                     `json:"credsStore"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, nil, err
	}
	keys, helpers = map[string]bool{}, map[string]string{"": config.Helper}
	for key := range config.Auths {
		keys[key] = true
	}
	maps.Copy(helpers, config.Helpers)
	return keys, helpers, nil
}

// checkHelper refuses a credential helper, a program by its name without the prefix, that others can change.
func checkHelper(name string) error {
	if name == "" {
		return nil
	}
	program, err := exec.LookPath("docker-credential-" + name)
	if err != nil {
		return err
	}
	return owned.Check(program)
}
