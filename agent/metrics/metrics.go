// Package metrics answers what monitoring wants to know about this host, as metrics of Prometheus. It promises that a
// reader finds the whole text or the one before, and that nothing of an image can break it.
//
// A series that does not apply, such as the reason of a run that was not kept from going on, is absent.
package metrics

import (
	"bytes"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/updatectl/updatectl/verify/printable"
)

// Host is what is measured of a host. A moment that is not known is the zero time.
type Host struct {
	Version, Root, Kernel string // of what runs; Version is "" for the host root
	Phase                 string
	Staged, Paused        bool
	// Level is how the host would get into the staged root, "" if that is not known.
	Level string
	// LastEnded is when the last switch ended, LastSucceeded whether the host ended in the root that it was sent to, and
	// LastOutage how long services were away, 0 if that was not measured.
	LastEnded     time.Time
	LastSucceeded bool
	LastOutage    time.Duration
	// Checked is when the source last answered an unattended run, and Blocked what kept the last one from going on, ""
	// for nothing.
	Checked time.Time
	Blocked string
	// SlotHeld is whether the host may hold a slot of the lock server, and SlotKept whether a failure is the reason.
	SlotHeld, SlotKept bool
	FixesOpen          int
	LivePatches        map[string]int // by state
	// RebootBy is when a full reboot is due because of the kernel's age.
	RebootBy time.Time
	BadRoots int
	Images   map[string]Image // that is booted, and that is staged, if they are images
}

// Image is how large an image is: the bytes of its files, and of these, what was not on the disk before.
type Image struct{ Bytes, New int64 }

// Text returns the metrics of a host in the text format of Prometheus.
func Text(h Host) ([]byte, error) {
	families, err := Registry(h).Gather()
	if err != nil {
		return nil, fmt.Errorf("cannot put the metrics together: %w", err)
	}
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			return nil, fmt.Errorf("cannot write the metrics as text: %w", err)
		}
	}
	return text.Bytes(), nil
}

// Registry returns a registry with the metrics of a host.
func Registry(h Host) *prometheus.Registry {
	g := gauges{prometheus.NewRegistry()}
	g.family("info", "What runs on this host: always 1, with the version and the root of the image and with the kernel.",
		"version", "root", "kernel").set(1, h.Version, h.Root, h.Kernel)
	g.family("phase", "How far the host is on its way to another root: 1 for the present phase.", "phase").set(1, h.Phase)
	g.flag("staged", "Whether a root is staged and waits for a switch.", h.Staged)
	if h.Level != "" {
		g.family("pending_level", "How the host would get into the staged root: 1 for the level.", "level").set(1, h.Level)
	}
	g.flag("paused", "Whether a person has paused updates.", h.Paused)
	g.flag("slot_held", "Whether this host may hold a slot of the lock server.", h.SlotHeld)
	g.flag("slot_kept", "Whether this host keeps its slot after a failure, so that no other host follows.", h.SlotKept)
	g.family("fixes_open", "Kernel fixes named by releases that neither the running kernel nor a live patch has.").
		set(float64(h.FixesOpen))
	g.family("bad_roots", "Roots that are not tried again automatically.").set(float64(h.BadRoots))
	patches := g.family("live_patches", "Live patches on this host, by their state.", "state")
	for state, n := range h.LivePatches {
		patches.set(float64(n), state)
	}
	whole := g.family("image_bytes", "Bytes of the files of an image.", "state")
	fresh := g.family("image_new_bytes", "Bytes of the files of an image that were not on the disk before.", "state")
	for state, image := range h.Images {
		whole.set(float64(image.Bytes), state)
		fresh.set(float64(image.New), state)
	}
	if h.Blocked != "" {
		g.family("blocked", "What kept the last unattended run from going on: 1 for the reason.", "reason").set(1, h.Blocked)
	}
	if !h.LastEnded.IsZero() {
		g.flag("last_switch_success", "Whether the last switch ended in the root that the host was sent to.", h.LastSucceeded)
	}
	if h.LastOutage > 0 {
		g.family("last_outage_seconds", "How long services were away at the last switch.").set(h.LastOutage.Seconds())
	}
	g.moment("last_switch_timestamp_seconds", "When the last switch ended, in seconds since 1970.", h.LastEnded)
	g.moment("last_check_timestamp_seconds",
		"When the source last answered an unattended run, in seconds since 1970.", h.Checked)
	g.moment("full_reboot_by_timestamp_seconds",
		"When a full reboot is due because of the age of the kernel, in seconds since 1970.", h.RebootBy)
	return g.Registry
}

// gauges registers gauges. A name that is registered twice is a panic: the names are constants.
type gauges struct{ *prometheus.Registry }

// family registers a family of gauges with labels, which may be none.
func (g gauges) family(name, help string, labels ...string) family {
	vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "updatectl", Name: name, Help: help}, labels)
	g.MustRegister(vec)
	return family{vec}
}

// flag registers a gauge that is 1 or 0.
func (g gauges) flag(name, help string, is bool) {
	value := 0.0
	if is {
		value = 1
	}
	g.family(name, help).set(value)
}

// moment registers a gauge with a time, unless that is not known.
func (g gauges) moment(name, help string, at time.Time) {
	if !at.IsZero() {
		g.family(name, help).set(float64(at.Unix()))
	}
}

// family is a family of gauges.
type family struct{ vec *prometheus.GaugeVec }

// set sets the gauge with these values of the labels.
func (f family) set(value float64, labels ...string) {
	for i, text := range labels {
		labels[i] = label(text)
	}
	f.vec.WithLabelValues(labels...).Set(value)
}

// maxLabel bounds the value of a label, in bytes. The longest of ours is the identity of a root, with 71.
const maxLabel = 128

// label returns a text as the value of a label: printable, and with a bound.
func label(text string) string {
	text = printable.Text(text[:min(len(text), maxLabel)])
	if len(text) <= maxLabel {
		return text
	}
	end := maxLabel
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
