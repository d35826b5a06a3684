package release

import (
	"cmp"
	"regexp"
	"strings"
)

// Compare orders two versions: below 0 when a is older than b, 0 when neither is. The order is that of the UAPI
// group's version format specification, which "systemd-analyze compare-versions" shows and which agrees with dpkg and
// rpm where these agree with each other. Digits count as numbers, letters as letters; "~" makes what follows older
// than nothing (1.0~rc1 before 1.0), "-" begins a revision, "^" a patched state, "." a point release. All other
// characters only separate.
func Compare(a, b string) int {
	for {
		a, b = strings.TrimLeftFunc(a, separates), strings.TrimLeftFunc(b, separates)
		if c := step(&a, &b, '~'); c != 0 {
			return c
		}
		if a == "" || b == "" {
			return cmp.Compare(min(len(a), 1), min(len(b), 1))
		}
		for _, mark := range []byte("-^.") {
			if c := step(&a, &b, mark); c != 0 {
				return c
			}
		}
		var c int
		if c, a, b = segment(a, b); c != 0 {
			return c
		}
	}
}

// step takes a mark off both versions. A version that has it where the other has not is the older one.
func step(a, b *string, mark byte) int {
	restA, hasA := strings.CutPrefix(*a, string(mark))
	restB, hasB := strings.CutPrefix(*b, string(mark))
	switch {
	case hasA && hasB:
		*a, *b = restA, restB
	case hasA:
		return -1
	case hasB:
		return 1
	}
	return 0
}

// segment compares the numbers, or else the words, at the beginning of two versions and returns what follows.
func segment(a, b string) (order int, restA, restB string) {
	numA, restA := span(a, digit)
	numB, restB := span(b, digit)
	if numA == "" && numB == "" {
		wordA, restA := span(a, letter)
		wordB, restB := span(b, letter)
		return strings.Compare(wordA, wordB), restA, restB
	}
	if numA == "" || numB == "" { // a number is newer than a word, or than nothing
		return cmp.Compare(min(len(numA), 1), min(len(numB), 1)), restA, restB
	}
	numA, numB = strings.TrimLeft(numA, "0"), strings.TrimLeft(numB, "0")
	return cmp.Or(cmp.Compare(len(numA), len(numB)), strings.Compare(numA, numB)), restA, restB
}

func span(s string, in func(byte) bool) (head, rest string) {
	n := 0
	for n < len(s) && in(s[n]) {
		n++
	}
	return s[:n], s[n:]
}

func digit(c byte) bool  { return c >= '0' && c <= '9' }
func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func separates(r rune) bool {
	return r > 0x7f || !digit(byte(r)) && !letter(byte(r)) && !strings.ContainsRune("~-^.", r)
}

// orderedForm begins with a number that stands for itself, as in 24.1, v2-rc1 or 20261101; a commit's hash does not.
var orderedForm = regexp.MustCompile(`^v?[0-9]+([.~^+_-].*)?$`)

// Ordered tells whether a version looks like one that has an order. A release's version always counts; what an image
// on its own calls its version may be a name or a hash, and older or newer means nothing for these.
func Ordered(version string) bool { return len(version) <= maxWord && orderedForm.MatchString(version) }
