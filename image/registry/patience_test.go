package registry

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	in := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, c := range []struct {
		name, header string
		status       int
		attempt      int
		least, most  time.Duration
	}{
		{"seconds", "7", 429, 0, 7 * time.Second, 7 * time.Second},
		{"date", in(20 * time.Second), 503, 0, 20 * time.Second, 20 * time.Second},
		{"too long", "86400", 429, 2, maxRetryAfter, maxRetryAfter},
		{"longer than a number", "99999999999999999999", 429, 0, retryMin, retryMax},
		{"a far date", in(1000 * time.Hour), 429, 0, maxRetryAfter, maxRetryAfter},
		{"a past date", in(-time.Hour), 429, 0, retryMin, retryMax},
		{"at once", "0", 503, 0, retryMin, retryMax},
		{"negative", "-5", 503, 0, retryMin, retryMax},
		{"rubbish", "soon", 503, 0, retryMin, retryMax},
		{"none", "", 500, 0, retryMin, retryMax},
		{"no more attempts", "7", 429, 3, -1, -1},
		{"nothing to repeat", "7", 404, 0, -1, -1},
		{"an answer", "7", 200, 0, -1, -1},
		{"another registry", "7", 429, 0, -1, -1},
		{"another registry, soon", "5", 429, 0, maxShortWait, maxShortWait},
		{"another registry, rubbish", "soon", 503, 0, retryMin, retryMax},
	} {
		another := strings.HasPrefix(c.name, "another registry")
		resp := &http.Response{StatusCode: c.status, Header: http.Header{"Retry-After": {c.header}}}
		got, err := patience{requestRetries, another, func() time.Time { return now }}.Retry(c.attempt, resp, nil)
		if err != nil || got < c.least || got > c.most {
			t.Errorf("%s: %v, %v; want %v to %v", c.name, got, err, c.least, c.most)
		}
	}
}
