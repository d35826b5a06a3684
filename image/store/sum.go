package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"regexp"
)

// image.json ends with a checksum of itself, in which the checksum has zeros. It finds bit rot; whoever can write the
// file can make a new one, so nothing that is signed depends on image.json.

// noSum stands for the checksum while it is computed.
var noSum = bytes.Repeat([]byte("0"), 2*sha256.Size)

// sumAtEnd matches the checksum. Before there was one, the last member was a number.
var sumAtEnd = regexp.MustCompile(`"sum": "([0-9a-f]{64})"\n}\n$`)

// encode returns image.json.
func (i Info) encode() ([]byte, error) {
	i.Sum = string(noSum)
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return nil, err
	}
	data = append(data, '\n')
	sum := sha256.Sum256(data)
	at := sumAtEnd.FindSubmatchIndex(data)
	hex.Encode(data[at[2]:at[3]], sum[:])
	return data, nil
}

var errSum = errors.New("its checksum is wrong")

// checkSum compares image.json with its checksum. One that an older agent wrote has none, and ends with a number.
func checkSum(data []byte) error {
	at := sumAtEnd.FindSubmatchIndex(data)
	if at == nil {
		if end := bytes.TrimRight(data, "\n} "); len(end) == 0 || end[len(end)-1] < '0' || end[len(end)-1] > '9' {
			return errSum
		}
		return nil
	}
	plain := bytes.Clone(data)
	copy(plain[at[2]:at[3]], noSum)
	sum := sha256.Sum256(plain)
	if hex.EncodeToString(sum[:]) != string(data[at[2]:at[3]]) {
		return errSum
	}
	return nil
}
