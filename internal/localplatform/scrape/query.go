package scrape

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrQuery says that a query is not of the language.
var ErrQuery = errors.New("bad query")

// Query is a parsed query.
type Query struct {
	// Metric is the name that is asked for.
	Metric string
	// Service is the service, empty for all of them.
	Service string
	// Instance is one replica, "*" for each replica, and empty for the
	// service as a whole.
	Instance string
}

// String gives the query back in its shortest form.
func (q Query) String() string {
	var m []string
	if q.Service != "" {
		m = append(m, "service="+strconv.Quote(q.Service))
	}
	if q.Instance != "" {
		m = append(m, "instance="+strconv.Quote(q.Instance))
	}
	if len(m) == 0 {
		return q.Metric
	}
	return q.Metric + "{" + strings.Join(m, ",") + "}"
}

// ParseQuery reads a query:
//
//	metric
//	metric{service="cart"}
//	metric{service="cart", instance="cart-7"}
//	metric{instance="*"}
//
// It is a small part of what Prometheus understands: a name and labels that
// must be equal, in which "*" for the instance stands for any. Errors match
// [ErrQuery] and name the place.
func ParseQuery(s string) (Query, error) {
	bad := func(at int, why string) (Query, error) {
		return Query{}, fmt.Errorf("scrape: query %q: at %d: %s: %w", s, at+1, why, ErrQuery)
	}
	var q Query
	i := skip(s, 0)
	j := word(s, i)
	if j == i {
		return bad(i, "want the name of a metric")
	}
	q.Metric = s[i:j]
	i = skip(s, j)
	if i == len(s) {
		return q, nil
	}
	if s[i] != '{' {
		return bad(i, "want {")
	}
	i = skip(s, i+1)
	var seen []string
	for i < len(s) && s[i] != '}' {
		j = word(s, i)
		label := s[i:j]
		if label != "service" && label != "instance" {
			return bad(i, "want service or instance")
		}
		if slices.Contains(seen, label) {
			return bad(i, label+" is given twice")
		}
		seen = append(seen, label)
		if i = skip(s, j); i == len(s) || s[i] != '=' {
			return bad(i, "want =")
		}
		i = skip(s, i+1)
		quoted, err := strconv.QuotedPrefix(s[i:])
		if err != nil || quoted[0] != '"' {
			return bad(i, "want a value in double quotes")
		}
		value, err := strconv.Unquote(quoted)
		if err != nil || value == "" {
			return bad(i, "empty or broken value")
		}
		if label == "service" {
			q.Service = value
		} else {
			q.Instance = value
		}
		i = skip(s, i+len(quoted))
		if i < len(s) && s[i] == ',' {
			i = skip(s, i+1)
		} else if i < len(s) && s[i] != '}' {
			return bad(i, "want , or }")
		}
	}
	if i == len(s) {
		return bad(i, "want }")
	}
	if i = skip(s, i+1); i != len(s) {
		return bad(i, "there is more than one query")
	}
	return q, nil
}

func skip(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n') {
		i++
	}
	return i
}

func word(s string, i int) int {
	for i < len(s) && (s[i] == '_' || s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z' || s[i] >= '0' && s[i] <= '9') {
		i++
	}
	return i
}
