package gitsource

import (
	"fmt"
	"strings"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// trailerKey tells whether s can be the key of a trailer: letters, digits
// and "-", as in Git.
func trailerKey(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// formatMessage gives the text of a commit: the message, an empty line, and
// the trailers, each on one line.
func formatMessage(message string, trailers []reconcile.Trailer) (string, error) {
	message = strings.TrimSpace(strings.ReplaceAll(message, "\r\n", "\n"))
	if message == "" {
		return "", fmt.Errorf("empty commit message: %w", reconcile.ErrInvalid)
	}
	if strings.ContainsRune(message, 0) {
		return "", fmt.Errorf("commit message with a zero byte: %w", reconcile.ErrInvalid)
	}
	var b strings.Builder
	b.WriteString(message)
	b.WriteByte('\n')
	for i, t := range trailers {
		if i == 0 {
			b.WriteByte('\n')
		}
		if !trailerKey(t.Key) {
			return "", fmt.Errorf("trailer %q: the key may have letters, digits and \"-\" only: %w", t.Key, reconcile.ErrInvalid)
		}
		// A line break would start another trailer.
		value := strings.Join(strings.Fields(strings.ReplaceAll(t.Value, "\x00", " ")), " ")
		fmt.Fprintf(&b, "%s: %s\n", t.Key, value)
	}
	return b.String(), nil
}

// parseMessage splits a commit's text. The trailers are the last paragraph,
// if it is not the first and each of its lines is "Key: value" or goes on
// with white space.
func parseMessage(text string) (string, []reconcile.Trailer) {
	text = strings.TrimRight(strings.ReplaceAll(text, "\r\n", "\n"), " \t\n")
	at := strings.LastIndex(text, "\n\n")
	if at < 0 {
		return text, nil
	}
	var out []reconcile.Trailer
	for line := range strings.SplitSeq(text[at+2:], "\n") {
		if len(out) > 0 && line != "" && (line[0] == ' ' || line[0] == '\t') {
			last := &out[len(out)-1]
			last.Value = strings.TrimSpace(last.Value + " " + strings.TrimSpace(line))
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok || !trailerKey(key) {
			return text, nil
		}
		out = append(out, reconcile.Trailer{Key: key, Value: strings.TrimSpace(value)})
	}
	return strings.TrimRight(text[:at], " \t\n"), out
}
