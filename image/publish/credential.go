package publish

import (
	"context"
	"os"
	"path/filepath"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// credential finds who we are to a registry in what "docker login" or "podman
// login" wrote; the first file that knows the registry decides.
func credential() auth.CredentialFunc {
	return func(ctx context.Context, hostport string) (auth.Credential, error) {
		for _, file := range credentialFiles() {
			store, err := credentials.NewStore(file, credentials.StoreOptions{})
			if err != nil {
				return auth.EmptyCredential, err
			}
			found, err := credentials.Credential(store)(ctx, hostport)
			if err != nil || found != auth.EmptyCredential {
				return found, err
			}
		}
		return auth.EmptyCredential, nil
	}
}

func credentialFiles() []string {
	var files []string
	add := func(dir string, name string) {
		if dir != "" {
			files = append(files, filepath.Join(dir, name))
		}
	}
	home, _ := os.UserHomeDir()
	add(os.Getenv("REGISTRY_AUTH_FILE"), "")
	add(os.Getenv("XDG_RUNTIME_DIR"), "containers/auth.json")
	add(home, ".config/containers/auth.json")
	add(os.Getenv("DOCKER_CONFIG"), "config.json")
	add(home, ".docker/config.json")
	return files
}
