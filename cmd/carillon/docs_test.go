package main

import (
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

const (
	repository        = "../.."
	configurationPage = repository + "/docs/configuration.md"
	beginReference    = "<!-- from here on it is generated: make generate -->\n"
)

// TestConfigurationPageIsCommitted fails when the table on the page is not what
// the code says. make generate writes it.
func TestConfigurationPageIsCommitted(t *testing.T) {
	t.Parallel()
	have, err := os.ReadFile(configurationPage)
	require.NoError(t, err)
	before, _, ok := strings.Cut(string(have), beginReference)
	require.True(t, ok, "the page has lost the mark before its table")
	want := before + beginReference + "\n" + configReference()
	if *update {
		require.NoError(t, os.WriteFile(configurationPage, []byte(want), 0o600))
		return
	}
	require.Equal(t, want, string(have), "run: make generate")
}

// TestTheReferenceShowsRanges: of every number and time.
func TestTheReferenceShowsRanges(t *testing.T) {
	t.Parallel()
	c := defaultConfig()
	for _, s := range c.settings() {
		switch s.into.(type) {
		case *int, *int64, *float64, *time.Duration:
			require.Contains(t, s.check.allowed, " to ", s.key)
			require.Contains(t, configReference(), "`--"+s.flag()+"` | `"+valueText(s.into)+"` | "+s.check.allowed+" |")
		}
	}
}

// documentedCommands are the command lines of this program in the documentation:
// spans in backticks, and lines of fenced blocks.
func documentedCommands(t *testing.T) map[string][]string {
	t.Helper()
	names := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "Dockerfile"}
	require.NoError(t, filepath.WalkDir(filepath.Join(repository, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			rel, _ := filepath.Rel(repository, path)
			names = append(names, rel)
		}
		return err
	}))
	var (
		span    = regexp.MustCompile("`([^`\n]+)`")
		program = regexp.MustCompile(`(?:^|[;&|(] *)(?:[A-Z_]+=\S+ +)*(?:\./|bin/|\./bin/|go run \./cmd/)?carillon +([^|;&#)]*)`)
		out     = map[string][]string{}
	)
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(repository, name))
		require.NoError(t, err)
		var code []string
		fenced := false
		for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "```") {
				fenced = !fenced
				continue
			}
			if fenced {
				code = append(code, strings.TrimPrefix(line, "$ "))
				continue
			}
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				code = append(code, m[1])
			}
		}
		for _, line := range code {
			for _, m := range program.FindAllStringSubmatch(line, -1) {
				out[name] = append(out[name], strings.TrimSpace(m[1]))
			}
		}
	}
	return out
}

// TestDocumentedCommandsExist looks every documented command and its flags up in
// the program.
func TestDocumentedCommandsExist(t *testing.T) {
	t.Parallel()
	root := newRootCommand(&cli{streams: streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard}})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	total := 0
	for page, lines := range documentedCommands(t) {
		for _, line := range lines {
			total++
			if why := commandFault(root, strings.Fields(line)); why != "" {
				t.Errorf("%s says carillon %s: %s", page, line, why)
			}
		}
	}
	require.NotZero(t, total, "no command was found in the documentation")
}

var commandWord = regexp.MustCompile(`^[a-z][a-z-]*$`)

// commandFault says what is wrong with a command line, "" if nothing is.
func commandFault(root *cobra.Command, words []string) string {
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err.Error()
	}
	cmd.InitDefaultHelpFlag()
	for _, word := range rest {
		if cmd.HasSubCommands() && commandWord.MatchString(word) {
			return "there is no command " + word
		}
		name, isFlag := strings.CutPrefix(word, "--")
		name, _, _ = strings.Cut(name, "=")
		if isFlag && name != "" && cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil {
			return "there is no flag --" + name
		}
	}
	return ""
}

// TestDocumentedMetricsExist: docs/operations/README.md has a row for every metric in
// the source, and for no other.
func TestDocumentedMetricsExist(t *testing.T) {
	t.Parallel()
	source := map[string]bool{}
	literal := regexp.MustCompile(`"(carillon_[a-z_]*[a-z])"`)
	require.NoError(t, filepath.WalkDir(repository, func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, m := range literal.FindAllStringSubmatch(string(text), -1) {
			source[m[1]] = true
		}
		return err
	}))
	page, err := os.ReadFile(repository + "/docs/operations/README.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(carillon_[a-z_]+)` ").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = true
	}
	require.Equal(t, source, documented)
}
