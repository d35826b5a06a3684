package lab

import "context"

// Operator installs what a person has who runs many hosts.
func Operator(ctx context.Context) (string, error) {
	return "", EnsurePackages(ctx, "openssh-client", "ansible-core")
}
