package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/knadh/koanf/maps"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/spf13/cobra"
)

func newConfigCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration and what can be set",
	}
	cmd.AddCommand(newConfigPrintCommand(c), newConfigReferenceCommand(c))
	return group(cmd)
}

func newConfigPrintCommand(c *cli) *cobra.Command {
	redact := true
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print the configuration in effect, as a file that can be used",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			return printConfig(c.out, cfg, redact)
		},
	}
	cmd.Flags().BoolVar(&redact, "redact", redact, "print *** for secrets")
	return cmd
}

func printConfig(w io.Writer, cfg Config, redact bool) error {
	flat := map[string]any{}
	for _, s := range cfg.settings() {
		flat[s.key] = plainValue(s.into)
		switch {
		case !redact:
		case s.redacted != nil:
			flat[s.key] = s.redacted()
		case s.secret && valueText(s.into) != "":
			flat[s.key] = "***"
		}
	}
	text, err := yaml.Parser().Marshal(maps.Unflatten(flat, delim))
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

func newConfigReferenceCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "reference",
		Short: "Print the table of all settings, in Markdown",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(c.out, configReference())
			return err
		},
	}
}

// configReference is the table of docs/configuration.md.
func configReference() string {
	var b strings.Builder
	b.WriteString("| Setting | Default | Allowed | Meaning |\n|---|---|---|---|\n")
	defaults := defaultConfig()
	for _, s := range defaults.settings() {
		names := "`" + s.key + "`<br>`" + s.env() + "`"
		if s.flag() != "" {
			names += "<br>`--" + s.flag() + "`"
		}
		value := ""
		if text := valueText(s.into); text != "" {
			value = "`" + text + "`"
		}
		allowed := s.check.allowed
		if _, ok := s.into.(*bool); ok {
			allowed = "`true`, `false`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", names, value, allowed, s.doc)
	}
	return b.String()
}
