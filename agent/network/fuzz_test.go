package network

import (
	"strings"
	"testing"
)

// FuzzRoutes: a default route has an interface, and a gateway only if that is an address.
func FuzzRoutes(f *testing.F) {
	for _, line := range []string{
		"eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0", "eth0 00000000 x 0 0 0 0 00000000",
		strings.Repeat("0", 32) + " 00 " + strings.Repeat("0", 32) + " 00 fe800000000000000000000000000001 400 1 0 3 eth0",
		"0 00 0 00 0 0 0 0 0 *",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for _, parse := range []func([]string) (route, bool){parseRoute4, parseRoute6} {
			r, isDefault := parse(strings.Fields(line))
			if isDefault != (r.Interface != "") || !isDefault && r.Gateway.IsValid() {
				t.Errorf("%q is %+v", line, r)
			}
		}
		isNamed(line, "eth0")
		value(line, "a")
	})
}
