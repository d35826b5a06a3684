// Package release reads, judges and makes releases: the signed index that names the images, live patches and deltas
// that belong together, and says in which order they were published and until when they count.
//
// A release is an OCI image index with the artifact type [ArtifactType]. What it says is in annotations below
// dev.updatectl; each is named once, in annotation.go. [Parse] takes only what a policy of package verify let pass,
// and is strict about what it knows: a malformed annotation refuses the whole release. What it does not know, it
// passes over, so that a newer publisher and an older host get along.
//
// [Release.Admit] decides whether a host takes a release, and which of its images. It is a pure function over [Facts].
// A signature says who made a release; Admit says whether now is its time:
//
//   - expired: its publisher no longer stands behind it, and whoever serves it may be hiding a newer one;
//   - replayed: a release with a larger sequence was accepted before;
//   - older: its version goes backwards while its sequence grows;
//   - a barrier: the host has to go through another version first;
//   - not compatible: no image for this platform and machine class, or systemd is too old for it.
package release
