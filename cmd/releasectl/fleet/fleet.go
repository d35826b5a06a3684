// Package fleet answers what the hosts of a fleet run, which of them failed and why, and what the others wait for, by
// what each of them answered to "updatectl status --output json". Every host is counted: one whose answer cannot be
// read is named as such.
//
// It knows the answers by their published schemas only, and decides without asking anybody.
package fleet

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxAnswer is how large the answer of a host may be, in bytes. It is far more than a status with thousands of fixes.
const MaxAnswer = 4 << 20

// Answer is what a host answered.
type Answer struct {
	// Host is the name of the host.
	Host string
	said said
	// problem is why said does not count, with its text; "" if it does.
	problem, text string
}

// said is the part of updatectl.status/v1 and of updatectl.error/v1 that is read here.
type said struct {
	Schema string `json:"schema"`
	Host   string `json:"host"` // in none of them: who gathers the answers may add it

	Booted     root     `json:"booted"`
	Volatile   bool     `json:"volatile"`
	Staged     *root    `json:"staged"`
	Paused     *paused  `json:"paused"`
	Unattended *attempt `json:"unattended"`
	Refused    *refused `json:"refused"`
	Switch     *moving  `json:"switch"`
	Last       *last    `json:"last"`

	Error  string `json:"error"`
	Reason string `json:"reason"`
}

type root struct {
	Root    string `json:"root"`
	Version string `json:"version"`
}

type paused struct {
	Reason string    `json:"reason"`
	Until  time.Time `json:"until"`
}

type attempt struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
	Text   string    `json:"text"`
	Until  time.Time `json:"until"`
}

type refused struct {
	Reason string `json:"reason"`
}

type moving struct {
	Target  string `json:"target"`
	Version string `json:"version"`
}

type last struct {
	Outcome string    `json:"outcome"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
}

// The schemas of the answers.
const (
	statusSchema = "updatectl.status/v1"
	errorSchema  = "updatectl.error/v1"
)

// Reasons of hosts that say nothing which counts.
const (
	noAnswer   = "no-answer"
	unreadable = "unreadable"
)

// Read returns the answer in text. The name of the host is in the member "host" of text if host is "".
func Read(host string, text []byte) Answer {
	a := Answer{Host: host}
	if len(text) > MaxAnswer {
		a.problem, a.text = unreadable, fmt.Sprintf("the answer is longer than %d bytes", MaxAnswer)
		return a
	}
	if strings.TrimSpace(string(text)) == "" {
		a.problem, a.text = noAnswer, "the answer is empty"
		return a
	}
	if err := json.Unmarshal(text, &a.said); err != nil {
		a.problem, a.text = unreadable, fmt.Sprintf("the answer is not the JSON of updatectl status: %v", err)
	}
	a.Host = cmp.Or(a.Host, a.said.Host)
	switch {
	case a.problem != "":
	case a.said.Schema == "":
		a.problem, a.text = noAnswer, "the answer names no schema"
	case a.said.Schema != statusSchema && a.said.Schema != errorSchema:
		a.problem, a.text = unreadable, fmt.Sprintf("the answer is a %q, not a %s", a.said.Schema, statusSchema)
	case a.said.Schema == statusSchema && a.said.Booted.Root == "":
		a.problem, a.text = unreadable, "the answer does not say which root runs"
	}
	return a
}

// Unreadable returns the answer of a host that cannot be read for a reason.
func Unreadable(host, why string) Answer { return Answer{Host: host, problem: unreadable, text: why} }

// Summary is what a fleet runs, and which hosts need somebody. Its lists are ordered by the names of the hosts, that of
// versions by how many hosts run it.
type Summary struct {
	Hosts    int       `json:"hosts"`
	Versions []Version `json:"versions"`
	Failed   []Finding `json:"failed"`
	Waiting  []Finding `json:"waiting"`
	// Silent are the hosts whose answers are missing or cannot be read.
	Silent []Finding `json:"silent"`
}

// Version is a root with the hosts that run it.
type Version struct {
	Version string   `json:"version,omitempty"`
	Root    string   `json:"root"`
	Count   int      `json:"count"`
	Hosts   []string `json:"hosts"`
}

// Finding is what there is to say about a host.
type Finding struct {
	Host string `json:"host"`
	// Reason is one word, Text the same for people.
	Reason string `json:"reason"`
	Text   string `json:"text,omitempty"`
	// Until is when it goes on at the earliest, zero when that is not known.
	Until time.Time `json:"until,omitzero"`
}

// Summarise returns the summary of the answers.
func Summarise(answers []Answer) Summary {
	none := []Finding{} // in JSON, a list is never null
	s := Summary{Hosts: len(answers), Versions: []Version{}, Failed: none, Waiting: none, Silent: none}
	running := map[root][]string{}
	for _, a := range answers {
		if a.problem != "" {
			s.Silent = append(s.Silent, Finding{Host: a.Host, Reason: a.problem, Text: a.text})
			continue
		}
		if a.said.Schema == statusSchema {
			running[a.said.Booted] = append(running[a.said.Booted], a.Host)
		}
		switch f, how := judge(a.said); how {
		case fails:
			f.Host = a.Host
			s.Failed = append(s.Failed, f)
		case waits:
			f.Host = a.Host
			s.Waiting = append(s.Waiting, f)
		}
	}
	for r, hosts := range running {
		slices.Sort(hosts)
		s.Versions = append(s.Versions, Version{Version: r.Version, Root: r.Root, Count: len(hosts), Hosts: hosts})
	}
	slices.SortFunc(s.Versions, func(a, b Version) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Root, b.Root))
	})
	for _, list := range [][]Finding{s.Failed, s.Waiting, s.Silent} {
		slices.SortStableFunc(list, func(a, b Finding) int { return cmp.Compare(a.Host, b.Host) })
	}
	return s
}
