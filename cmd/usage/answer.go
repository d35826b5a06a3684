package usage

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"

	"github.com/updatectl/updatectl/verify/printable"
)

// Failure is an error in JSON.
type Failure struct {
	Error string `json:"error"`
	// Reason is one word of a closed list, "" for a command that has none.
	Reason string `json:"reason,omitempty"`
	Hint   string `json:"hint,omitempty"`
	Code   int    `json:"exit_code"`
}

// WriteJSON writes the answer of a command as one document: the schema and the fields of value. What came from outside
// is shown to a terminal and not obeyed by it.
func WriteJSON(w io.Writer, schema string, value any) error {
	fields, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write the answer: %w", err)
	}
	body := strings.TrimPrefix(string(printable.JSON(fields)), "{")
	if strings.TrimSpace(body) != "}" {
		body = "," + body
	}
	_, err = fmt.Fprintf(w, "{\n  \"schema\": \"%s\"%s\n", schema, body)
	return err
}

// Size returns a number of bytes with three digits, in powers of 1000.
func Size(bytes int64) string { return units.HumanSizeWithPrecision(float64(bytes), 3) }

// Count returns a number of things.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
