package db

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Every statement is written once, as SQLite reads it. These are the places
// where PostgreSQL reads the same thing in other words; what differs in more than
// words has a statement for each database.
var (
	indexHint = regexp.MustCompile(` INDEXED BY \w+`)             // its planner needs no hint
	fixedJoin = regexp.MustCompile(`CROSS JOIN (\w+(?: \w)?) ON`) // nor an order of joins
	jsonEach  = regexp.MustCompile(`json_each\((\?\d*)\) (\w)\b`) // each element of a JSON array
	reordered = strings.NewReplacer("LIMIT -1 OFFSET", "LIMIT ALL OFFSET")
)

var translated sync.Map // statement -> as PostgreSQL reads it

// translate puts a statement into PostgreSQL's words. numbered: it has parameters.
func translate(query string, numbered bool) string {
	if v, ok := translated.Load(query); ok {
		return v.(string)
	}
	q := indexHint.ReplaceAllString(query, "")
	q = fixedJoin.ReplaceAllString(q, "JOIN $1 ON")
	q = jsonEach.ReplaceAllString(q, "jsonb_array_elements_text(CAST($1 AS jsonb)) AS $2(value)")
	q = reordered.Replace(q)
	if numbered {
		q = number(q)
	}
	if len(query) < 4096 { // lists of values have many lengths, and are not worth keeping
		translated.Store(query, q)
	}
	return q
}

// number turns ? and ?2 into $1 and $2.
func number(q string) string {
	var b strings.Builder
	b.Grow(len(q) + 32)
	n, quoted := 0, false
	for i := range len(q) {
		c := q[i]
		switch {
		case c == '\'':
			quoted = !quoted
		case c == '?' && !quoted:
			b.WriteByte('$')
			if i+1 == len(q) || q[i+1] < '0' || q[i+1] > '9' {
				n++
				b.WriteString(strconv.Itoa(n))
			}
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
