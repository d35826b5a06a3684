package numbers

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
)

// TestCorrect: files of an image belong to the same names here, and never to another name.
func TestCorrect(t *testing.T) {
	const foreign = firstForeign
	for name, c := range map[string]struct {
		image, host string // group
		used        []uint32
		want        map[uint32]uint32
		shown       []Shown
		refused     []string
	}{
		"the same numbers": {"cron:x:997:\n", "cron:x:997:\n", []uint32{0, 997}, map[uint32]uint32{0: 0, 997: 997}, nil, nil},
		"a chain": {"a:x:997:\nb:x:996:\n", "docker:x:997:\na:x:996:\nb:x:995:\n", []uint32{996, 997},
			map[uint32]uint32{0: 0, 997: 996, 996: 995},
			[]Shown{{"group", "a", 997, 996, 1, "/997", ""}, {"group", "b", 996, 995, 1, "/996", ""}}, nil},
		"two that swap": {"a:x:1:\nb:x:2:\n", "a:x:2:\nb:x:1:\n", []uint32{1, 2}, map[uint32]uint32{0: 0, 1: 2, 2: 1},
			[]Shown{{"group", "a", 1, 2, 1, "/1", ""}, {"group", "b", 2, 1, 1, "/2", ""}}, nil},
		"a number without a name, which is free here": {"", "", []uint32{500}, map[uint32]uint32{0: 0, 500: 500}, nil, nil},
		"a number without a name, which somebody has here": {"", "docker:x:500:\n", []uint32{500},
			map[uint32]uint32{0: 0, 500: foreign + 500},
			[]Shown{{"group", "", 500, foreign + 500, 1, "/500", "docker"}}, nil},
		"a number without a name, which a name of the image moves to": {"a:x:997:\n", "a:x:500:\n", []uint32{500, 997},
			map[uint32]uint32{0: 0, 997: 500, 500: foreign + 500},
			[]Shown{{"group", "", 500, foreign + 500, 1, "/500", "a"}, {"group", "a", 997, 500, 1, "/997", ""}}, nil},
		"a name that was deleted here": {"gone:x:997:\n", "docker:x:997:\n", []uint32{997},
			map[uint32]uint32{0: 0, 997: foreign + 997},
			[]Shown{{"group", "gone", 997, foreign + 997, 1, "/997", "docker"}}, nil},
		"two names with one number in the image": {"gone:x:5:\na:x:5:\n", "a:x:6:\n", []uint32{5},
			map[uint32]uint32{0: 0, 5: 6}, []Shown{{"group", "a", 5, 6, 1, "/5", ""}}, nil},
		"two names with one number here": {"a:x:5:\nb:x:6:\n", "a:x:7:\nb:x:7:\n", []uint32{5, 6},
			map[uint32]uint32{0: 0, 5: 7, 6: 6}, []Shown{{"group", "a", 5, 7, 1, "/5", ""}},
			[]string{"/6 belongs to the group b (6), which has 7 here, like a"}},
		"a name that is root here": {"a:x:5:\n", "a:x:0:\n", []uint32{5}, map[uint32]uint32{0: 0, 5: 5}, nil,
			[]string{"/5 belongs to the group a (5), which has 0 here, like root"}},
	} {
		used := FileOwners{GIDs: map[uint32]Owned{}}
		for _, id := range c.used {
			used.GIDs[id] = Owned{1, "/" + table.FormatID(id)}
		}
		tables := func(text string) table.Tables { return table.Tables{"group": table.Parse("group", []byte(text))} }
		got := Correct(tables(c.image), tables(c.host), used)
		if !maps.Equal(got.IDs.GIDs, c.want) || !reflect.DeepEqual(got.Shown, c.shown) ||
			!slices.Equal(got.Refused, c.refused) {
			t.Errorf("%s: %+v\nwant %v %v %v", name, got, c.want, c.shown, c.refused)
		}
		targets := map[uint32]bool{}
		for _, to := range got.IDs.GIDs {
			if targets[to] {
				t.Errorf("%s: two numbers are shown as %d", name, to)
			}
			targets[to] = true
		}
	}
}
