package config

import (
	"reflect"
	"strings"
	"testing"
)

func TestHoldRule(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   HoldRule
		err    string // a part of it
	}{
		{},
		{values: []string{"tcp:80", "tcp:443"}, want: HoldRule{Ports: []uint16{80, 443}}},
		{values: []string{"listening"}, want: HoldRule{Listening: true}},
		{values: []string{"tcp:50000", "listening"}, want: HoldRule{Listening: true, Ports: []uint16{50000}}},
		{values: []string{"tcp:65535", "tcp:65536"}, want: HoldRule{Ports: []uint16{65535}}, err: `"tcp:65536" is neither`},
		{values: []string{"tcp:0"}, err: `"tcp:0" is neither "listening" nor a TCP port, such as "tcp:443"`},
		{values: []string{"tcp:-1"}, err: `"tcp:-1" is neither`},
		{values: []string{"tcp:"}, err: `"tcp:" is neither`},
		{values: []string{"80"}, err: `"80" is neither`},
		{values: []string{"https"}, err: `"https" is neither`},
		{values: []string{"tcp:80:90"}, err: `"tcp:80:90" is neither`},
		{values: []string{"udp:53", "tcp:80"}, want: HoldRule{Ports: []uint16{80}}, err: `"udp:53" cannot be held`},
		{values: []string{"tcp:80", "tcp:080"}, want: HoldRule{Ports: []uint16{80}}, err: `"tcp:080" is there twice`},
		{values: []string{"listening", "listening"}, want: HoldRule{Listening: true}, err: `"listening" is there twice`},
	} {
		rule, err := parseHold(c.values)
		if !reflect.DeepEqual(rule, c.want) {
			t.Errorf("%q is %+v, want %+v", c.values, rule, c.want)
		}
		if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: the error is %v, want %q", c.values, err, c.err)
		}
	}
}
