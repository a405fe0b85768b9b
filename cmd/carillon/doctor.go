package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/doctor"
)

// What doctor ends with, apart from the codes that every command has.
const (
	exitWarnings = 3 // it works, and something should be looked at
	exitFaults   = 4 // it does not work, or what was acknowledged may be lost
)

// The levels of findings.
const (
	fault   = "fault"
	warning = "warning"
	note    = "note" // worth knowing; nothing is wrong
)

// finding is something to be told, in words.
type finding struct {
	Level string `json:"level"`
	Check string `json:"check"`
	What  string `json:"what"`         // what is so
	Why   string `json:"why"`          // why it matters
	Do    string `json:"do,omitempty"` // what to do about it
}

// diagnosis is all that doctor says.
type diagnosis struct {
	Database string    `json:"database"`
	Status   string    `json:"status"` // sound, warnings or faults
	Checked  []string  `json:"checked"`
	Findings []finding `json:"findings"`
}

func newDoctorCommand(c *cli) *cobra.Command {
	var deep, asJSON bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Tell what is wrong with an installation, why it matters, and what to do", Args: noArgs,
		Long: "Looks at the database, its settings, what waits, and who runs. It changes nothing, and works beside running servers\n" +
			"and without one.\n\n" +
			"It ends with 0 if all is sound (there may be notes), with 3 if there are warnings, and with 4 if there are faults.\n" +
			"1 means that it could not look, and 2 that the command line or the configuration is wrong.",
		Example: "  carillon doctor\n  carillon doctor --deep\n  carillon doctor --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			d, err := diagnose(cmd.Context(), cfg, deep)
			if err != nil {
				return err
			}
			if err := c.printDiagnosis(d, asJSON); err != nil {
				return err
			}
			switch d.Status {
			case "faults":
				return exitError{exitFaults}
			case "warnings":
				return exitError{exitWarnings}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "read every page of an SQLite file as well, which takes as long as reading it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "answer for programs")
	return cmd
}

// diagnose looks, and puts what it finds into words.
func diagnose(ctx context.Context, cfg Config, deep bool) (diagnosis, error) {
	o := store.Options{URL: cfg.DatabaseURL, Connections: cfg.Connections}
	var early []finding
	switch text, err := cfg.KeyRingText(); {
	case err != nil:
		early = append(early, finding{fault, "key_ring", err.Error(), "No server starts without the key ring.", "Bring the file back, or name the right one by key_ring_file."})
	case text == "":
		early = append(early, finding{warning, "key_ring", "No key ring is configured here, so whether it opens the database was not looked at.",
			"Without the right key ring, credentials and content cannot be read.", "Run doctor with the configuration of the server."})
	default:
		if o.KeyRing, err = db.ParseKeyRing(text); err != nil {
			early = append(early, finding{fault, "key_ring", err.Error(), "No server starts without the key ring.", "Bring back the one that the database was made with."})
		}
	}
	s, err := store.Peek(ctx, o)
	if err != nil {
		return diagnosis{}, err
	}
	facts := s.Examine(ctx, deep)
	facts.KeptFor = cfg.Retention.Rows
	return newDiagnosis(facts, o.KeyRing != nil, early, time.Now()), s.Close()
}

// check is one thing to look at.
type check struct {
	name string
	look func(d *doctor.Diagnosis, now time.Time) []finding
}

func checksFor(d *doctor.Diagnosis) []check {
	list := []check{{"schema", checkSchema}}
	if d.SQLite != nil {
		list = append(list, check{"sqlite", checkSQLite}, check{"disk", checkDisk})
	}
	if d.Postgres != nil {
		list = append(list, check{"durability", checkDurability}, check{"standbys", checkStandbys}, check{"vacuum", checkVacuum},
			check{"replication_slots", checkSlots}, check{"connections", checkConnections}, check{"clock", checkClock})
	}
	if d.Schema.Have >= d.Schema.Want && d.Schema.Have > 0 {
		list = append(list, check{"growth", checkGrowth}, check{"servers", checkServers}, check{"invariants", checkInvariants}, check{"sending", checkSending}, check{"queue", checkQueue},
			check{"holds", checkHolds}, check{"waits", checkWaits}, check{"dead_letters", checkDead}, check{"devices", checkDoubt}, check{"credentials", checkCredentials}, check{"vapid_pairs", checkPairs}, check{"backup", checkBackup})
	}
	return list
}

func newDiagnosis(d doctor.Diagnosis, keyRing bool, early []finding, now time.Time) diagnosis {
	out := diagnosis{Database: d.Database, Status: "sound", Findings: early, Checked: []string{}}
	if keyRing {
		out.Checked = append(out.Checked, "key_ring")
		out.Findings = append(out.Findings, checkKeyRing(&d)...)
	}
	for _, u := range d.Unknown {
		out.Findings = append(out.Findings, finding{warning, "doctor", fmt.Sprintf("Could not look at %s (%s).", u.What, u.Err),
			"What is wrong there is not known.", "See that the database answers, and that its user may read what this asks for."})
	}
	for _, c := range checksFor(&d) {
		out.Checked = append(out.Checked, c.name)
		out.Findings = append(out.Findings, c.look(&d, now)...)
	}
	for _, f := range out.Findings {
		switch {
		case f.Level == fault:
			out.Status = "faults"
		case f.Level == warning && out.Status == "sound":
			out.Status = "warnings"
		}
	}
	return out
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func (c *cli) printDiagnosis(d diagnosis, asJSON bool) error {
	if asJSON {
		if d.Findings == nil {
			d.Findings = []finding{}
		}
		b, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.out, string(b))
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", d.Database)
	count := map[string]int{}
	for _, level := range []string{fault, warning, note} {
		for _, f := range d.Findings {
			if f.Level != level {
				continue
			}
			count[level]++
			fmt.Fprintf(&b, "\n%s (%s): %s\n  Why it matters: %s\n", strings.ToUpper(level), f.Check, f.What, f.Why)
			if f.Do != "" {
				fmt.Fprintf(&b, "  What to do: %s\n", f.Do)
			}
		}
	}
	fmt.Fprintf(&b, "\nLooked at: %s.\n", strings.Join(d.Checked, ", "))
	switch {
	case d.Status == "sound" && count[note] == 0:
		b.WriteString("All of it is sound.\n")
	case d.Status == "sound":
		fmt.Fprintf(&b, "It is sound; %d notes are worth knowing.\n", count[note])
	default:
		fmt.Fprintf(&b, "%d faults, %d warnings.\n", count[fault], count[warning])
	}
	_, err := fmt.Fprint(c.out, b.String())
	return err
}
