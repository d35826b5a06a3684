// Package merge3 joins two changes of one text, line by line. It promises that a result has every change of both sides
// and nothing else: where the two touch, there is no result.
package merge3

import (
	"bytes"
	"slices"

	"github.com/rogpeppe/go-internal/diff"
)

// What is larger is no configuration that a person wrote, and is not compared by lines.
const (
	// MaxText is the size in bytes of the largest text.
	MaxText = 1 << 20
	// maxEdits is how many lines may be added and removed between two texts: the memory of a comparison grows with its
	// square, and reaches 4 MB here.
	maxEdits = 1000
)

// IsText reports whether content can be compared by lines: it is of bounded size, and no byte is NUL.
func IsText(content []byte) bool {
	return len(content) <= MaxText && bytes.IndexByte(content, 0) < 0
}

// Lines returns the text that has the changes from base to ours and those from base to theirs. It returns false when
// there is none: both changed the same or neighboring lines, or one of the three is no text. Which side is ours makes
// no difference.
func Lines(base, ours, theirs []byte) ([]byte, bool) {
	if !IsText(base) || !IsText(ours) || !IsText(theirs) {
		return nil, false
	}
	b, o, t := split(base), split(ours), split(theirs)
	inOurs, ok := match(b, o)
	inTheirs, ok2 := match(b, t)
	if !ok || !ok2 {
		return nil, false
	}
	merged := []byte{}
	add := func(list []string) {
		for _, line := range list {
			merged = append(merged, line...)
		}
	}
	for i, j, k := 0, 0, 0; ; { // what is before i, j and k is done
		stable := i
		for stable < len(b) && inOurs[stable] == j+stable-i && inTheirs[stable] == k+stable-i {
			stable++
		}
		add(b[i:stable])
		i, j, k = stable, j+stable-i, k+stable-i
		if i == len(b) && j == len(o) && k == len(t) {
			return merged, true
		}
		// Up to the next line that is in all three, one side at most has a change.
		next, nextOurs, nextTheirs := i, len(o), len(t)
		for next < len(b) && (inOurs[next] < 0 || inTheirs[next] < 0) {
			next++
		}
		if next < len(b) {
			nextOurs, nextTheirs = inOurs[next], inTheirs[next]
		}
		was, our, their := b[i:next], o[j:nextOurs], t[k:nextTheirs]
		switch {
		case slices.Equal(was, our):
			add(their)
		case slices.Equal(was, their), slices.Equal(our, their):
			add(our)
		default:
			return nil, false
		}
		i, j, k = next, nextOurs, nextTheirs
	}
}

// split returns the lines of a text, each with its end.
func split(text []byte) []string {
	var all []string
	for line := range bytes.Lines(text) {
		all = append(all, string(line))
	}
	return all
}

// match returns for each line of a which line of b it is, -1 for one that b does not have: a longest common
// subsequence. It returns false when the two differ in more than maxEdits lines. The way there is the greedy algorithm
// of Myers, An O(ND) Difference Algorithm and Its Variations (1986).
func match(a, b []string) ([]int, bool) {
	in := make([]int, len(a))
	for i := range in {
		in[i] = -1
	}
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		in[head] = head
		head++
	}
	endA, endB := len(a), len(b)
	for endA > head && endB > head && a[endA-1] == b[endB-1] {
		endA--
		endB--
		in[endA] = endB
	}
	steps, ok := shortestEdit(a[head:endA], b[head:endB])
	if !ok {
		return nil, false
	}
	// Backwards from the end: each step was one edit, then lines that are equal.
	x, y := endA-head, endB-head
	for d := len(steps) - 1; d >= 0; d-- {
		x0, y0 := before(steps, d, x-y)
		for x > x0 && y > y0 {
			x, y = x-1, y-1
			in[head+x] = head + y
		}
		x, y = x0, y0
	}
	return in, true
}

// shortestEdit returns for each number of edits d how far one gets in a with d edits, on each diagonal from -d to d.
// The last one reaches the end of both.
func shortestEdit(a, b []string) (steps [][]int32, ok bool) {
	for d := 0; d <= maxEdits; d++ {
		reach := make([]int32, 2*d+1)
		steps = append(steps, reach)
		for diagonal := -d; diagonal <= d; diagonal += 2 {
			x := start(steps, d, diagonal)
			for x < len(a) && x-diagonal < len(b) && a[x] == b[x-diagonal] {
				x++
			}
			reach[diagonal+d] = int32(x)
			if x >= len(a) && x-diagonal >= len(b) {
				return steps, true
			}
		}
	}
	return nil, false
}

// start returns where in a one is on a diagonal after the last of d edits, before the equal lines that follow it.
func start(steps [][]int32, d, diagonal int) int {
	if d == 0 {
		return 0
	}
	last := steps[d-1] // diagonals -(d-1) to d-1
	at := func(diagonal int) int { return int(last[diagonal+d-1]) }
	if diagonal == -d || diagonal != d && at(diagonal-1) < at(diagonal+1) {
		return at(diagonal + 1) // a line of b is added
	}
	return at(diagonal-1) + 1 // a line of a is removed
}

// before returns where in a and b one was before the last of d edits that led to a diagonal.
func before(steps [][]int32, d, diagonal int) (x, y int) {
	if d == 0 {
		return 0, 0
	}
	x = start(steps, d, diagonal)
	if from := steps[d-1]; diagonal == -d || diagonal != d && from[diagonal-1+d-1] < from[diagonal+1+d-1] {
		return x, x - diagonal - 1
	}
	return x - 1, x - diagonal
}

// Unified returns the difference of two texts in the unified format, "" when there is none.
func Unified(oldName string, before []byte, newName string, after []byte) string {
	return string(diff.Diff(oldName, before, newName, after))
}
