package registry

import (
	"net/http"
	"strconv"
	"time"

	"oras.land/oras-go/v2/registry/remote/retry"
)

// maxRetryAfter bounds how long a server can make a request wait for its next attempt. A rate limit is often counted by
// the minute.
const maxRetryAfter = time.Minute

// maxShortWait bounds the same where another registry can be asked instead.
const maxShortWait = 5 * time.Second

// patience says when a request is repeated: after a short pause or, if the server says for how long it is busy, not
// before that. Where another registry can be asked, one that is busy for long is not asked again.
type patience struct {
	retries int
	hurried bool // there is another registry
	now     func() time.Time
}

// Retry returns how long to wait before the next attempt, less than zero for none. It is a retry.Policy.
func (p patience) Retry(attempt int, resp *http.Response, err error) (time.Duration, error) {
	generic := retry.GenericPolicy{
		Retryable: retry.DefaultPredicate,
		Backoff:   retry.DefaultBackoff,
		MinWait:   retryMin,
		MaxWait:   retryMax,
		MaxRetry:  p.retries,
	}
	wait, err := generic.Retry(attempt, resp, err)
	if err != nil || wait < 0 || resp == nil {
		return wait, err
	}
	busy := retryAfter(resp.Header.Get("Retry-After"), p.now())
	if p.hurried && busy > maxShortWait {
		return -1, nil
	}
	return max(wait, min(busy, maxRetryAfter)), nil
}

// retryAfter returns how long a server wants to be left alone, by the value of its header: seconds or a date. It is
// zero if the value says nothing.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
