package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const block = 512 // of a tar archive

// entry is one entry of an archive, for the fields that matter here.
type entry struct {
	name, target, body string
	kind               byte // a regular file if 0
}

// archive packs entries. Names go as they are: the writer of archive/tar would not write some of them.
func archive(entries ...entry) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		b.Write(header(e.name, e.target, max(e.kind, '0'), int64(len(e.body))))
		b.WriteString(e.body)
		b.Write(make([]byte, -len(e.body)&(block-1)))
	}
	b.Write(make([]byte, 2*block))
	return b.Bytes()
}

// header is one of the ustar format.
func header(name, target string, kind byte, size int64) []byte {
	h := make([]byte, block)
	copy(h, name)
	copy(h[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00        ", 0o755, 0, 0, size&(1<<33-1), 0))
	if size >= 1<<33 { // too large for octal digits
		binary.BigEndian.PutUint64(h[128:], uint64(size))
		copy(h[124:], "\x80\x00\x00\x00")
	}
	h[156] = kind
	copy(h[157:257], target)
	copy(h[257:], "ustar\x0000")
	if kind == '3' || kind == '4' {
		copy(h[329:], "0000001\x000000003\x00")
	}
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// pax is an extended header, whose records replace fields of the entry after it.
func pax(key, value string) entry {
	record := fmt.Sprintf(" %s=%s\n", key, value)
	n := len(record) + 2
	for len(fmt.Sprint(n))+len(record) != n {
		n = len(fmt.Sprint(n)) + len(record)
	}
	return entry{name: "PaxHeaders/x", kind: 'x', body: fmt.Sprint(n) + record}
}

// repeated is a compressed stream of a header and then the same piece over and over: frames and members are read one
// after the other, so that a bomb of gigabytes is made of a few kilobytes.
func repeated(compress func([]byte) []byte, head []byte, times int) []byte {
	piece := compress(make([]byte, 16<<20))
	return append(compress(head), bytes.Repeat(piece, times)...)
}

func gzipped(raw []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(raw)
	w.Close()
	return b.Bytes()
}

func zstandard(raw []byte) []byte {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	w.Write(raw)
	w.Close()
	return b.Bytes()
}

// aMillion is an archive of a million empty files. It is made as it is compressed, so that the test stays small.
func aMillion() ([]byte, digest.Digest) {
	var b bytes.Buffer
	sum := digest.SHA256.Digester()
	z, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(1<<20))
	if err != nil {
		panic(err)
	}
	w := io.MultiWriter(z, sum.Hash())
	const name = "tiny/0000000"
	h := header(name, "", '0', 0)
	zeros := 0
	fmt.Sscanf(string(h[148:154]), "%o", &zeros)
	many := make([]byte, 0, 1000*block)
	for n := range 1_000_000 {
		digits := 0
		for i, rest := len(name)-1, n; i >= len("tiny/"); i, rest = i-1, rest/10 {
			h[i] = byte('0' + rest%10)
			digits += rest % 10
		}
		for i, sum := 153, zeros+digits; i >= 148; i, sum = i-1, sum/8 {
			h[i] = byte('0' + sum%8)
		}
		if many = append(many, h...); len(many) == cap(many) {
			w.Write(many)
			many = many[:0]
		}
	}
	w.Write(make([]byte, 2*block))
	z.Close()
	return b.Bytes(), sum.Digest()
}

// layerRows: layers that are not what was signed, that never end, and that mean to leave their place.
func layerRows() []row {
	plain := func(tag string, entries ...entry) func(*attacker) string {
		return func(a *attacker) string {
			raw := archive(entries...)
			return a.layered(tag, ocispec.MediaTypeImageLayer, raw, digest.FromBytes(raw))
		}
	}
	spoilt := func(tag string, change func([]byte) []byte) func(*attacker) string {
		return func(a *attacker) string {
			raw := archive(entry{name: "etc/" + tag, body: tag})
			from := a.layered(tag, ocispec.MediaTypeImageLayer, raw, digest.FromBytes(raw))
			a.check(os.WriteFile(a.blob(digest.FromBytes(raw)), change(raw), 0o644))
			return from
		}
	}
	// files is how many names the good image has, and so many more.
	files := func(more int) func(*attacker, string) {
		return func(a *attacker, host string) {
			plain := a.host("")
			if o := a.run(plain, "stage", "--from", a.reference("good")); o.code != exitAvailable {
				a.t.Fatalf("%+v", o)
			}
			if got, want := a.staged(host).Files, a.staged(plain).Files+more; got != want {
				a.t.Errorf("%d names, want %d", got, want)
			}
		}
	}
	evil := entry{name: "escape", body: "x"}
	return []row{
		{name: "layer longer than signed", code: 20, says: "does not match", publish: spoilt("longer",
			func(b []byte) []byte { return append(b, 0) })},
		{name: "layer shorter than signed", code: 31, says: "stopped after", publish: spoilt("shorter",
			func(b []byte) []byte { return b[:len(b)-1] })},
		{name: "layer of other content", code: 20, says: "does not match", publish: spoilt("other",
			func(b []byte) []byte { b[0] ^= 1; return b })},
		{name: "layer that unpacks to something else", code: 20, says: "the configuration lists sha256",
			publish: func(a *attacker) string {
				return a.layered("diff", ocispec.MediaTypeImageLayer, archive(evil), digest.FromString("x"))
			}},

		{name: "gzip bomb", code: 20, says: "times its size", publish: func(a *attacker) string {
			return a.layered("gzip", ocispec.MediaTypeImageLayerGzip, repeated(gzipped, header("bomb", "", '0', 15<<30), 80),
				digest.FromString("x"))
		}},
		{name: "zstd bomb", code: 20, says: "times its size", publish: func(a *attacker) string {
			return a.layered("zstd", ocispec.MediaTypeImageLayerZstd, repeated(zstandard, header("bomb", "", '0', 15<<30),
				80), digest.FromString("x"))
		}},
		{name: "bomb behind the end of the archive", code: 20, says: "times its size", publish: func(a *attacker) string {
			return a.layered("behind", ocispec.MediaTypeImageLayerZstd, repeated(zstandard, archive(), 80),
				digest.FromString("x"))
		}},
		{name: "zstd window of gigabytes", code: 20, says: "window", publish: func(a *attacker) string {
			frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xb0, 0x01, 0x00, 0x00} // a window of 2^32 bytes, an empty block
			return a.layered("window", ocispec.MediaTypeImageLayerZstd, frame, digest.FromString("x"))
		}},
		{name: "a million tiny files", code: 20, says: "the layer is too large", publish: func(a *attacker) string {
			packed, diff := aMillion()
			return a.layered("million", ocispec.MediaTypeImageLayerZstd, packed, diff)
		}},
		{name: "file larger than a file may be", code: 20, says: "the layer is too large", publish: func(a *attacker) string {
			return a.layered("huge", ocispec.MediaTypeImageLayer, append(header("huge", "", '0', 1<<50), archive()...),
				digest.FromString("x"))
		}},

		{name: "..", publish: plain("dots", entry{name: "../../escape"}), code: 20, says: "there is a .. in the path"},
		{name: ".. inside", publish: plain("inside", entry{name: "etc/../../escape"}), code: 20,
			says: "there is a .. in the path"},
		{name: "absolute name", code: exitAvailable, // tools write them; it is a name in the image as any other
			publish: plain("absolute", entry{name: "/usr/absolute"}), holds: files(1)},
		// Links are followed inside the image only, as its own programs will.
		{name: "write through a symbolic link", code: exitAvailable,
			publish: plain("through", entry{name: "out", kind: '2', target: "/etc"}, entry{name: "out/inside", body: "x"},
				entry{name: "up", kind: '2', target: "../../../../etc"}, entry{name: "up/inside2"}),
			holds: files(4)},
		{name: "hard link outside", code: 20, says: "there is a .. in the path",
			publish: plain("link", entry{name: "escape", kind: '1', target: "../../../etc/shadow"})},
		{name: "absolute hard link", code: 20, says: "which does not exist",
			publish: plain("absolute-link", entry{name: "escape", kind: '1', target: "/etc/shadow"})},
		{name: "whiteout outside", publish: plain("whiteout", entry{name: "../.wh.escape"}), code: 20,
			says: "there is a .. in the path"},
		{name: "whiteout of the parent", publish: plain("parent", entry{name: "etc/.wh..."}), code: 20, says: "whiteout"},
		// Images have them; the root is mounted with nodev where it is only looked at.
		{name: "device node", code: exitAvailable,
			publish: plain("device", entry{name: "dev/mem", kind: '3'}), holds: files(2)},
		{name: "overlayfs whiteout", code: 20, says: "not of OCI", publish: func(a *attacker) string {
			h := header("escape", "", '3', 0)
			copy(h[329:], "0000000\x000000000\x00")
			copy(h[148:], "        ")
			sum := 0
			for _, c := range h {
				sum += int(c)
			}
			copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
			raw := append(h, archive()...)
			return a.layered("overlay", ocispec.MediaTypeImageLayer, raw, digest.FromBytes(raw))
		}},
		{name: "new line in a name", publish: plain("line", entry{name: "escape\nhint: run this"}), code: 20,
			says: `escape\nhint`},
		{name: "NUL in a name", publish: plain("nul", pax("path", "escape\x00x"), entry{name: "x"}), code: 20,
			says: "malformed"},
		{name: "terminal's commands in a name", publish: plain("tty-name", entry{name: "../\x1b[2J\u202escape"}),
			code: 20, says: "there is a .. in the path"},
		{name: "duplicate entries", code: exitAvailable, // as every unpacker has it: the last one counts
			publish: plain("entries", entry{name: "etc/dup", body: "1"}, entry{name: "etc/dup", body: "22"}), holds: files(1)},
		{name: "PAX name that disagrees", publish: plain("pax", pax("path", "../../escape"), entry{name: "harmless"}),
			code: 20, says: "there is a .. in the path"},
		{name: "PAX link that disagrees", publish: plain("pax-link", pax("linkpath", "../../../etc/shadow"),
			entry{name: "escape", kind: '1', target: "etc/hostname"}), code: 20, says: "there is a .. in the path"},
		{name: "PAX size that disagrees", code: 20, says: "malformed",
			publish: plain("pax-size", pax("size", "99999999"), entry{name: "escape", body: "x"})},
		// The file system tells them apart, and so do we.
		{name: "names that differ by case or composition", code: exitAvailable,
			publish: plain("unicode", entry{name: "etc/Name"}, entry{name: "etc/name"}, entry{name: "etc/\u00e9"},
				entry{name: "etc/e\u0301"}), holds: files(4)},
		// The table is never read: what the stream holds counts.
		{name: "zstd:chunked table of contents that disagrees", code: exitAvailable,
			publish: func(a *attacker) string {
				raw := archive(entry{name: "etc/true", body: "x"})
				toc := zstandard([]byte(`{"version":1,"entries":[` +
					`{"type":"reg","name":"../../escape","size":1},{"type":"reg","name":"etc/false","size":1}]}`))
				frame := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, uint32(len(toc)))
				at := len(zstandard(raw)) + 8
				packed := append(append(zstandard(raw), frame...), toc...)
				l, err := a.put(ocispec.MediaTypeImageLayerZstd, packed)
				a.check(err)
				l.Annotations = map[string]string{
					"io.github.containers.zstd-chunked.manifest-checksum": digest.FromBytes(toc).String(),
					"io.github.containers.zstd-chunked.manifest-position": fmt.Sprintf("%d:%d:%d:1", at, len(toc), 114),
				}
				return a.changed("chunked", func(m *ocispec.Manifest, c *ocispec.Image) {
					m.Layers, c.RootFS.DiffIDs = append(m.Layers, l), append(c.RootFS.DiffIDs, digest.FromBytes(raw))
				})
			}, holds: files(1)},
		{name: "a name of 300 bytes", publish: plain("long-name", pax("path", strings.Repeat("n", 300)),
			entry{name: "x"}), code: 20, says: "the layer is too large"},
	}
}
