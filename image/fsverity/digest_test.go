package fsverity

import (
	"bytes"
	"encoding/json"
	"testing"
)

// The digests were printed by `fsverity digest --compact` (fsverity-utils 1.5) for files with that many letters u. The
// sizes are just below and above a block, a full block of hashes (128 blocks), and a second and a third level.
var known = []struct {
	size   int
	digest string
}{
	{0, "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"},
	{1, "3e7c843e04fd785db180b7c1db97df23255cce1e70f105956a80ee5f3c16d862"},
	{4095, "06708173b79e7debc7cac630420c60066c59b0e0a75b54d62443a8ca2256fe4e"},
	{4096, "6cbf0b789edf7672e9902ec7ce7d3524eb2b19af2e21572a43dcdface7e97e57"},
	{4097, "bda9af6d40bf37c5384187d4197a44ace2d6d47736836d566c24508a92a446fb"},
	{524288, "9717ed6204a0ead429b6d397c0fcb548ee7adece2fe2755c3e5317b7b5de1165"},
	{524289, "2f41c0ca223c4177ec4844bd92c2db69ffc6788950ab0a0f6d2dd4cb9e4eafce"},
	{1048577, "171316346f7c70cd69c7ff44b6584706a423d0f61f04c01c626b71fe3b2366c4"},
	{70000000, "cf87e90552077a060626576dfdc288d54f1b59b36cafbca3219fbda1be54b1e1"},
}

func TestDigestMatchesTheFsverityTool(t *testing.T) {
	for _, k := range known {
		content := bytes.Repeat([]byte("u"), k.size)
		if got := Sum(content).String(); got != k.digest {
			t.Errorf("%d bytes: got %s, want %s", k.size, got, k.digest)
		}
	}
}

func TestDigestDoesNotDependOnHowItIsWritten(t *testing.T) {
	content := bytes.Repeat([]byte("u"), 1048577)
	var h Hasher
	for _, piece := range []int{1, 7, 4095, 4096, 4097, 100000} {
		h.Reset()
		for rest := content; len(rest) > 0; {
			n := min(piece, len(rest))
			h.Write(rest[:n])
			rest = rest[n:]
		}
		if got, want := h.Digest(), Sum(content); got != want {
			t.Errorf("written %d bytes at a time: got %s, want %s", piece, got, want)
		}
	}
}

func TestDigestTravelsThroughJSON(t *testing.T) {
	want := Sum([]byte("content"))
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Digest
	if err := json.Unmarshal(text, &got); err != nil || got != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
	for _, bad := range []string{"", "abc", "zz", want.String() + "00"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) accepted it", bad)
		}
	}
}
