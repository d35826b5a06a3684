package fetcher

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// kind says what a frame is for. Both sides send frames: a byte for the kind, four for the length, and the content.
type kind byte

const (
	asked    kind = 'q' // to the fetcher: a request, the first frame of a connection
	login    kind = 'l' // to the fetcher: the credentials for a host
	loginFor kind = 'h' // the host that asks for credentials
	found    kind = 'f' // a descriptor; the answer to a request for content is one opened frame instead
	opened   kind = 'o'
	data     kind = 'd' // a part of a body
	ended    kind = 'e' // the last frame: how the request ended
)

// limits are the largest contents of frames, in bytes.
var limits = map[kind]int{
	asked:    4 << 10,
	login:    256 << 10, // tokens in credentials take a few KiB
	loginFor: 1 << 10,
	found:    16 << 10, // with the annotations of a referrer
	opened:   1 << 10,
	data:     maxData,
	ended:    16 << 10, // its text is bounded further
}

const (
	headerSize = 5
	// maxData is the size of a large read. Unix sockets hold about as much.
	maxData = 128 << 10
)

// errFrame means that the other side sends what it must not.
var errFrame = errors.New("the message is not well-formed")

// readHeader reads the beginning of a frame. Its length is within the limit of its kind.
func readHeader(r io.Reader) (kind, int, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, 0, err
	}
	k, n := kind(header[0]), binary.BigEndian.Uint32(header[1:])
	limit, known := limits[k]
	if !known {
		return 0, 0, fmt.Errorf("%w: the kind %q is unknown", errFrame, byte(k))
	}
	if uint64(n) > uint64(limit) {
		return 0, 0, fmt.Errorf("%w: it has %d bytes, more than %d", errFrame, n, limit)
	}
	return k, int(n), nil
}

// readFrame reads a frame of one of these kinds.
func readFrame(r io.Reader, kinds ...kind) (kind, []byte, error) {
	k, n, err := readHeader(r)
	if err != nil {
		return 0, nil, err
	}
	for _, wanted := range kinds {
		if k == wanted {
			content := make([]byte, n)
			_, err := io.ReadFull(r, content)
			return k, content, err
		}
	}
	return 0, nil, fmt.Errorf("%w: the kind %q comes at the wrong time", errFrame, byte(k))
}

// writeFrame writes a frame.
func writeFrame(w io.Writer, k kind, content []byte) error {
	if len(content) > limits[k] {
		return fmt.Errorf("%w: it has %d bytes, more than %d", errFrame, len(content), limits[k])
	}
	return sealFrame(w, k, append(make([]byte, headerSize, headerSize+len(content)), content...))
}

// sealFrame writes a frame in whose buffer the header is still empty.
func sealFrame(w io.Writer, k kind, frame []byte) error {
	frame[0] = byte(k)
	binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-headerSize))
	_, err := w.Write(frame)
	return err
}
