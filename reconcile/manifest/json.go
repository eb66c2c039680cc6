package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// parseJSON reads any number of JSON values into the same syntax tree that
// YAML gives. JSON has its own reader because YAML parsers refuse some of it:
// tabs, surrogate pairs.
func parseJSON(data []byte) ([]*yaml.Node, *Error) {
	p := &jsonParser{src: data, line: 1}
	var out []*yaml.Node
	for {
		p.space()
		if p.pos == len(p.src) {
			return out, nil
		}
		n := p.value(0)
		if p.err != nil {
			return out, p.err
		}
		out = append(out, n)
	}
}

type jsonParser struct {
	src       []byte
	pos       int
	line      int
	lineStart int
	err       *Error
}

func (p *jsonParser) column() int {
	return 1 + utf8.RuneCount(p.src[p.lineStart:p.pos])
}

func (p *jsonParser) fail(format string, args ...any) *yaml.Node {
	if p.err == nil {
		p.err = &Error{Line: p.line, Column: p.column(), Err: fmt.Errorf(format, args...)}
	}
	return nil
}

func (p *jsonParser) space() {
	for p.pos < len(p.src) {
		switch p.src[p.pos] {
		case '\n':
			p.line++
			p.lineStart = p.pos + 1
		case '\r':
			if p.pos+1 == len(p.src) || p.src[p.pos+1] != '\n' {
				p.line++
				p.lineStart = p.pos + 1
			}
		case ' ', '\t':
		default:
			return
		}
		p.pos++
	}
}

func (p *jsonParser) value(depth int) *yaml.Node {
	if depth > MaxDepth {
		return p.fail("nested deeper than %d levels", MaxDepth)
	}
	if p.pos == len(p.src) {
		return p.fail("unexpected end of file")
	}
	n := &yaml.Node{Line: p.line, Column: p.column()}
	switch c := p.src[p.pos]; c {
	case '{', '[':
		n.Style = yaml.FlowStyle
		n.Kind = yaml.MappingNode
		closer := byte('}')
		if c == '[' {
			n.Kind, closer = yaml.SequenceNode, ']'
		}
		p.pos++
		p.space()
		if p.at(closer) {
			p.pos++
			return n
		}
		for {
			p.space()
			if n.Kind == yaml.MappingNode {
				if !p.at('"') {
					return p.fail("want a key in double quotes")
				}
				key := p.value(depth + 1)
				if p.err != nil {
					return nil
				}
				p.space()
				if !p.at(':') {
					return p.fail("want a colon after the key")
				}
				p.pos++
				p.space()
				n.Content = append(n.Content, key)
			}
			v := p.value(depth + 1)
			if p.err != nil {
				return nil
			}
			n.Content = append(n.Content, v)
			p.space()
			switch {
			case p.at(','):
				p.pos++
			case p.at(closer):
				p.pos++
				return n
			default:
				return p.fail("want a comma or %q", closer)
			}
		}
	case '"':
		end := p.pos + 1
		for end < len(p.src) && p.src[end] != '"' {
			if p.src[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(p.src) {
			return p.fail("unterminated string")
		}
		n.Kind, n.Style = yaml.ScalarNode, yaml.DoubleQuotedStyle
		if err := json.Unmarshal(p.src[p.pos:end+1], &n.Value); err != nil {
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				return p.fail("bad string: %s", syntax.Error())
			}
			return p.fail("bad string: %w", err)
		}
		p.pos = end + 1
		return n
	default:
		end := p.pos
		for end < len(p.src) && isWord(p.src[end]) {
			end++
		}
		word := p.src[p.pos:end]
		if len(word) == 0 {
			r, _ := utf8.DecodeRune(p.src[p.pos:])
			return p.fail("unexpected %q", r)
		}
		if !json.Valid(word) {
			return p.fail("unexpected %q", word)
		}
		n.Kind, n.Value = yaml.ScalarNode, string(word)
		p.pos = end
		return n
	}
}

func (p *jsonParser) at(c byte) bool { return p.pos < len(p.src) && p.src[p.pos] == c }

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.'
}
