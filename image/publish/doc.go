// Package publish is the publisher's side of image: it makes releases, attaches signatures, copies all that to where
// hosts fetch it, and inspects what is published.
//
// Reading uses package source, as on a host. This package only adds writing.
package publish
