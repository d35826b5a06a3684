package trust

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"github.com/updatectl/updatectl/verify"
)

// FuzzLedger: a root whose /etc restricts nothing takes back no restriction of a stored ledger, whatever is in it.
func FuzzLedger(f *testing.F) {
	for _, text := range []string{
		`{"root":"a","configured":[{"key_id":"k","name":"k","revoked":true,"reason":"stolen","root":"a"}],"remembered":null}`,
		`{"root":"a","configured":[{"key_id":"k","not_after":"2026-01-01T00:00:00Z"},{"key_id":"k","revoked":true}],` +
			`"remembered":[{"key_id":"k","not_after":"2025-01-01T00:00:00Z"},{"identity":{"subject":"x"},"revoked":true}]}`,
		`{"root":"b","configured":[{"key_id":"k","log":"required","trust_root":"{}"},{"key_id":"k","log":"x"}]}`, `null`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var l Ledger
		if json.Unmarshal(text, &l) != nil {
			return
		}
		all := slices.Concat(l.Configured, l.Remembered)
		next := l.Update(nil, "another than "+l.Root, true)
		for _, r := range all {
			covered := slices.ContainsFunc(next.Remembered, func(o Restriction) bool {
				return r.isAboutSame(o) && !r.beyond(o).restricts()
			})
			if r.restricts() && !covered {
				t.Errorf("%+v is lost: %+v", r, next.Remembered)
			}
		}
		if again := next.Update(nil, next.Root, true); !reflect.DeepEqual(again.Remembered, next.Remembered) {
			t.Errorf("in the same root, %+v became %+v", next.Remembered, again.Remembered)
		}
		_ = next.Restrict(&verify.Policy{}) // a trust root that cannot be read is an error
		next.Kept(verify.Policy{})
	})
}
