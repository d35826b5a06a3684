package fetcher

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/updatectl/updatectl/image/failure"
)

// credentials are what root answers with when a registry requires a login.
type credentials struct {
	Username     string  `json:"username,omitempty"`
	Password     string  `json:"password,omitempty"`
	RefreshToken string  `json:"refresh_token,omitempty"`
	AccessToken  string  `json:"access_token,omitempty"`
	Failed       outcome `json:"failed"`
}

func (c credentials) credential() auth.Credential {
	return auth.Credential{
		Username: c.Username, Password: c.Password, RefreshToken: c.RefreshToken, AccessToken: c.AccessToken,
	}
}

// errLogins means that a fetcher asks for credentials that are none of its business.
var errLogins = fmt.Errorf("%w: the process that fetches asks for the credentials of several hosts", failure.ErrAuth)

// onlyFor finds credentials for the registry in a reference, and for one other host: the token service that it names.
// A fetcher that was taken over cannot collect the logins of other registries.
func onlyFor(ref registry.Reference, find auth.CredentialFunc) auth.CredentialFunc {
	var mu sync.Mutex
	other := ""
	return func(ctx context.Context, host string) (auth.Credential, error) {
		mu.Lock()
		if host != ref.Host() && other == "" {
			other = host
		}
		allowed := host == ref.Host() || host == other
		mu.Unlock()
		if !allowed {
			return auth.EmptyCredential, errLogins
		}
		return find(ctx, host)
	}
}

// credentialsFor returns the frame that answers a question for the credentials for a host.
func credentialsFor(ctx context.Context, find auth.CredentialFunc, host string) ([]byte, error) {
	c, err := find(ctx, host)
	if err != nil {
		return json.Marshal(credentials{Failed: outcomeOf(err)})
	}
	return json.Marshal(credentials{Username: c.Username, Password: c.Password, RefreshToken: c.RefreshToken,
		AccessToken: c.AccessToken})
}
