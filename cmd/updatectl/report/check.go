package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/offer"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/cmd/usage"
)

// Available writes what is published for the host.
func Available(w io.Writer, v agent.Available) {
	switch {
	case !v.Newer && !v.Live:
		fmt.Fprintf(w, "Up to date: %s runs%s%s.\n", short(v.Root), detail("version", v.Version),
			detail("signed by", signedBy(v.Vouchers)))
		if v.Trying {
			fmt.Fprintf(w, "It is not judged yet: `updatectl status` shows until when it has to be good.\n")
		}
		return
	case !v.Newer:
		fmt.Fprintf(w, "Live patches for the running kernel are published; the root stays.\n")
		fmt.Fprintf(w, "  release\t%s\n", v.Reference)
		versionText(w, v.Version)
		releaseText(w, "  ", v.Release)
		fmt.Fprintf(w, "  signed by\t%s\n", signedBy(v.Vouchers))
		publishedLiveText(w, v.LivePatches)
		return
	}
	fmt.Fprintf(w, "Another image is published.\n")
	fmt.Fprintf(w, "  image\t%s\n", v.Reference)
	versionText(w, v.Version)
	releaseText(w, "  ", v.Release)
	fmt.Fprintf(w, "  root\t%s\n", short(v.Root))
	fmt.Fprintf(w, "  signed by\t%s\n", signedBy(v.Vouchers))
	runningText(w, v)
	if v.Staged {
		fmt.Fprintf(w, "  staged\tyes\n")
	} else {
		fmt.Fprintf(w, "  layers\t%s at most to fetch\n", usage.Size(v.Download))
	}
	publishedLiveText(w, v.LivePatches)
	badText(w, v.Bad)
}

// runningText writes which root runs.
func runningText(w io.Writer, v agent.Available) {
	trial := ""
	if v.Trying {
		trial = ", not judged yet"
	}
	fmt.Fprintf(w, "  runs now\t%s%s\n", short(v.Booted), trial)
}

// versionText writes the version of an image. An image need not have one.
func versionText(w io.Writer, version string) {
	if version != "" {
		fmt.Fprintf(w, "  version\t%s\n", version)
	}
}

// badText writes why an image was given up, and how to take it anyway.
func badText(w io.Writer, bad *record.Bad) {
	if bad != nil {
		fmt.Fprintf(w, "  given up\t%s: %s; `updatectl apply --retry` takes it anyway\n",
			bad.At.Format("2006-01-02 15:04"), bad.Reason)
	}
}

// publishedLiveText writes the live patches of a release. Its signer vouches for all of them.
func publishedLiveText(w io.Writer, list []live.LivePatch) {
	for _, p := range list {
		p.Vouchers = nil
		fmt.Fprintf(w, "  live patch\t%s\n", strings.Replace(livePatchText(p), "\t", "  ", 1))
	}
}

// releaseText writes what a release says about itself.
func releaseText(w io.Writer, indent string, r *offer.Release) {
	if r == nil {
		return
	}
	label := func(name string) string {
		if indent == "" {
			return strings.ToUpper(name[:1]) + name[1:]
		}
		return indent + name
	}
	fmt.Fprintf(w, "%s\t%d\n", label("sequence"), r.Sequence)
	if r.Stream != "" {
		fmt.Fprintf(w, "%s\t%s\n", label("stream"), r.Stream)
	}
	fmt.Fprintf(w, "%s\t%s\n", label("expires"), r.Expires.Format(time.RFC3339))
	if r.Notes == "" {
		return
	}
	for n, line := range strings.Split(r.Notes, "\n") {
		name := ""
		if n == 0 {
			name = label("notes")
		}
		fmt.Fprintf(w, "%s\t%s\n", name, strings.ReplaceAll(line, "\t", "    "))
	}
}
