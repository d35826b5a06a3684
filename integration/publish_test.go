//go:build lab

package integration

import (
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

func TestPublisherTools(t *testing.T) {
	beside(t, lab.Nspawn)
	ctx := t.Context()
	for name, o := range map[string]lab.RegistryOptions{
		"plain": {},
		"tls":   {TLS: true},
		"auth":  {TLS: true, User: "operator", Password: "secret"},
	} {
		t.Run(name, func(t *testing.T) {
			r := lab.NewRegistry(t, o)
			p, err := lab.NewPublisher(ctx)
			if err != nil {
				t.Fatal(err)
			}
			tree, err := lab.V1(ctx)
			if err != nil {
				t.Fatal(err)
			}
			digest, err := p.Release(ctx, r, tree, "os/server:stable")
			if err != nil {
				t.Fatal(err)
			}
			reference := r.Host + "/os/server@" + digest
			if err := p.Verify(ctx, r, reference); err != nil {
				t.Error(err)
			}
			if err := p.SignOld(ctx, r, reference); err != nil {
				t.Error(err)
			}
		})
	}
}
