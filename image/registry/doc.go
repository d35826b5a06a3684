// Package registry asks registries, with the credentials and the certificate authorities that are set up for them, and
// only as long as they answer. A server that sends or takes nothing is given up on. Another host is not shown the
// credentials of a registry, except the token service that the registry names.
package registry
