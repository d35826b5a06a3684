// Package publish is the publisher's half of image: it packs a root directory into an image, attaches signatures to
// what is published, copies both to where hosts fetch them, and tells what is there. Packing the same tree twice gives
// the same manifest digest.
//
// Reading goes through package source, as on a host; only writing is here.
package publish
