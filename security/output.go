package security

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
)

// WriteTable writes findings as an aligned table for people, followed by a
// line that counts them. Control characters are replaced, so that a hostile
// manifest cannot steer the reader's terminal.
func WriteTable(w io.Writer, fs []Finding) error {
	var b bytes.Buffer
	if len(fs) > 0 {
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "SEVERITY\tRULE\tPLACE\tRESOURCE\tMESSAGE")
		for _, f := range fs {
			key, at := "-", "-"
			if f.Key.Kind != "" {
				key = f.Key.String()
			}
			if p := place(f.Origin); p != "" {
				at = p
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", f.Severity, f.Rule, printable(at), printable(key), printable(f.Message+f.note()))
		}
		if err := t.Flush(); err != nil {
			return fmt.Errorf("security: write table: %w", err)
		}
		b.WriteByte('\n')
	}
	b.WriteString(Summary(fs))
	b.WriteByte('\n')
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("security: write table: %w", err)
	}
	return nil
}

// Summary counts findings in one line: "3 findings: 1 critical, 2 high; 1 of
// them excepted".
func Summary(fs []Finding) string {
	if len(fs) == 0 {
		return "no findings"
	}
	var by [Critical + 1]int
	excepted := 0
	for _, f := range fs {
		if f.Severity <= Critical {
			by[f.Severity]++
		}
		if f.Excepted() {
			excepted++
		}
	}
	var parts []string
	for s := Critical; s >= Info; s-- {
		if by[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", by[s], s))
		}
	}
	noun := "findings"
	if len(fs) == 1 {
		noun = "finding"
	}
	out := fmt.Sprintf("%d %s: %s", len(fs), noun, strings.Join(parts, ", "))
	if excepted > 0 {
		out += fmt.Sprintf("; %d of them excepted", excepted)
	}
	return out
}

// WriteJSON writes findings as an indented JSON array, [] for none, with a
// newline at the end. Equal findings give equal bytes.
func WriteJSON(w io.Writer, fs []Finding) error {
	if fs == nil {
		fs = []Finding{}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(fs); err != nil {
		return fmt.Errorf("security: write JSON: %w", err)
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("security: write JSON: %w", err)
	}
	return nil
}

// printable replaces what does not print on one line of a terminal.
func printable(s string) string {
	if strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unprintable(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
