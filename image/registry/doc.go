// Package registry talks to registries, with the credentials and the certificate authorities that are set up for them.
// It gives up on a server that sends or accepts nothing for too long. The credentials for a registry go to no other
// host, except the token service that the registry names.
package registry
