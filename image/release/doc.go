// Package release reads, admits and makes releases. A release is a signed index that lists the images, live patches
// and deltas that belong together, and says in which order releases follow each other and until when this one is
// valid.
//
// A release is an OCI image index of the artifact type [ArtifactType]. Its data is in annotations below dev.updatectl,
// which annotation.go lists. [Parse] accepts only what a policy of package verify has verified, and is strict: one
// malformed annotation makes the whole release malformed. Annotations and entries that it does not know are ignored,
// so that an older host can read what a newer publisher made.
//
// [Release.Admit] decides whether a host accepts a release, and selects the image. It is a pure function of [Facts]. A
// signature says who made a release; Admit refuses one that is not for this host now:
//
//   - expired: a newer one may be withheld from the host;
//   - replayed: one with a larger sequence was accepted before;
//   - older: its version is older although its sequence is larger;
//   - a barrier: the host has to apply another version first;
//   - not compatible: it has no image for this platform and machine class, or the systemd of the host is too old.
package release
