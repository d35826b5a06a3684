package release

import (
	"cmp"
	"regexp"
	"strings"
)

// Compare returns a negative number if version a is older than b, a positive one if it is newer, and 0 if neither. The
// order is that of the UAPI version format specification, which "systemd-analyze compare-versions" implements; it
// agrees with dpkg and rpm where these agree with each other. Digits are compared as numbers, letters as letters.
// After "~" follows what is older than nothing (1.0~rc1 comes before 1.0), after "-" a revision, after "^" a patch
// level, after "." a point release. All other characters are separators.
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

// step removes a mark from both versions. If only one version has it, that one is older.
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

// segment compares the numbers or words at the beginning of two versions, and returns what follows them.
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

// orderedForm matches versions that begin with a whole number, such as 24.1, v2-rc1 or 20261101, but not the hash of a
// commit.
var orderedForm = regexp.MustCompile(`^v?[0-9]+([.~^+_-].*)?$`)

// Ordered reports whether a version looks like one that can be compared. The version of a release always can. That of
// an image without a release may be a name or a hash, of which none is older.
func Ordered(version string) bool { return len(version) <= maxWord && orderedForm.MatchString(version) }
