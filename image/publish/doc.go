// Package publish is the publisher's side of image: it packs root directories into images, makes releases, attaches
// signatures, copies all that to where hosts fetch it, and inspects what is published. Packing the same tree twice
// gives the same manifest digest.
//
// Reading uses package source, as on a host. This package only adds writing.
package publish
