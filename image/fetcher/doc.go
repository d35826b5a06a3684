// Package fetcher asks registries in a process without privileges. What a registry, its token service or a proxy sends
// is parsed there: TLS, HTTP, and the lists that registries answer with. The process, the fetcher, is this program once
// more, as a user of its own; it may read what resolving names needs, write nothing, and start nothing. There is
// one for each repository, which has the login of that one.
//
// The process that starts it trusts nothing of what it says: messages, their number and their texts are bounded, and
// content is verified by its digest as if it came from the registry itself. No descriptor is taken from it. A fetcher
// that ends is started again with the next request.
package fetcher
