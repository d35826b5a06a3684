package source

import (
	"fmt"
	"io"
	"testing"
)

// BenchmarkBlob compares reading and checking a blob in this process with what a fetcher costs.
func BenchmarkBlob(b *testing.B) {
	const size = 128 << 20
	r := newTestRegistry(b)
	d := r.blob("x", random(size))
	for _, apart := range []bool{false, true} {
		b.Run(fmt.Sprintf("apart=%v", apart), func(b *testing.B) {
			s, err := Open(r.host()+"/os/server:x", Options{Apart: apart, PlainHTTP: []string{r.host()}})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			for b.Loop() {
				body, err := s.Blob(b.Context(), d)
				if err == nil {
					_, err = io.Copy(io.Discard, body)
				}
				if err != nil {
					b.Fatal(err)
				}
				body.Close()
			}
		})
	}
}
