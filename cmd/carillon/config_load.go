package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

const (
	envPrefix  = "CARILLON_"
	configFlag = "config"
	configEnv  = envPrefix + "CONFIG"
	delim      = "."
)

// source is where settings come from.
type source struct {
	environ []string       // as os.Environ gives it
	flags   *pflag.FlagSet // parsed; with what addFlags added
}

// configError lists everything that is wrong with the configuration.
type configError []string

func (e configError) Error() string {
	return "the configuration cannot be used:\n  - " + strings.Join(e, "\n  - ")
}

// addFlags adds a flag for every setting that has one, and --config. Help shows
// the common ones; `carillon config reference` shows them all.
func addFlags(flags *pflag.FlagSet) {
	flags.String(configFlag, "", "YAML or JSON file with settings ("+configEnv+")")
	defaults := defaultConfig()
	for _, s := range defaults.settings() {
		if s.flag() == "" {
			continue
		}
		// A flag without a value is taken for true.
		flags.String(s.flag(), "", strings.ReplaceAll(s.doc, "`", ""))
		f := flags.Lookup(s.flag())
		if _, ok := s.into.(*bool); ok {
			f.NoOptDefVal = "true"
		}
		f.DefValue = valueText(s.into)
		f.Hidden = !s.common
	}
}

// load reads the configuration: defaults, then the file, then the environment,
// then flags; the later ones win. A variable that is set to nothing counts as not
// set. The error is a configError with every fault. unknown lists variables that
// look like settings and are none.
func load(from source) (c Config, unknown []string, err error) {
	c = defaultConfig()
	list := c.settings()
	k := koanf.New(delim)
	var faults configError

	defaults := map[string]any{}
	for _, s := range list {
		defaults[s.key] = plainValue(s.into)
	}
	if err := k.Load(confmap.Provider(defaults, delim), nil); err != nil {
		return c, nil, err
	}
	if path := from.file(); path != "" {
		faults = append(faults, loadFile(k, path, list)...)
	}
	environ, unknown := from.variables(list)
	if err := k.Load(environ, nil); err != nil {
		return c, nil, err
	}
	if from.flags != nil {
		if err := k.Load(from.changed(k, list), nil); err != nil {
			return c, nil, err
		}
	}
	faults = append(faults, fill(k, list)...)
	if len(faults) > 0 {
		return c, unknown, faults
	}
	return c, unknown, nil
}

// fill sets every member and checks it.
func fill(k *koanf.Koanf, list []setting) (faults configError) {
	var sound []setting
	for _, s := range list {
		raw := k.Get(s.key)
		if raw == nil { // "workers:" in YAML, or a section that was overwritten
			continue
		}
		err := parse(s.into, raw)
		switch {
		case err == nil:
			sound = append(sound, s)
		case s.secret:
			faults = append(faults, s.names()+": cannot be read; the value is not shown")
		default:
			faults = append(faults, s.names()+": "+err.Error())
		}
	}
	for _, s := range sound { // after all, since some look at others
		if s.check.fault == nil {
			continue
		}
		if why := s.check.fault(); why != "" {
			faults = append(faults, s.names()+": "+why)
		}
	}
	return faults
}

// file is the path of the settings file, "" if none is named.
func (f source) file() string {
	if f.flags != nil {
		if path, err := f.flags.GetString(configFlag); err == nil && path != "" {
			return path
		}
	}
	for _, v := range f.environ {
		if path, ok := strings.CutPrefix(v, configEnv+"="); ok {
			return path
		}
	}
	return ""
}

// loadFile adds a file's settings to k. Keys may be nested or dotted.
func loadFile(k *koanf.Koanf, path string, list []setting) (faults configError) {
	b, err := os.ReadFile(path)
	if err != nil {
		return configError{fmt.Sprintf("--%s (%s): %s", configFlag, configEnv, err)}
	}
	file := koanf.New(delim)
	if err := file.Load(rawbytes.Provider(b), yaml.Parser()); err != nil {
		why := err.Error()
		if strings.Contains(why, "cannot unmarshal") { // it would quote the file
			why = "settings are key: value"
		}
		return configError{fmt.Sprintf("%s is not a YAML or JSON file of settings: %s", path, why)}
	}
	flat := file.All()
	for _, key := range file.Keys() {
		if slices.ContainsFunc(list, func(s setting) bool { return s.key == key || strings.HasPrefix(key, s.key+delim) }) {
			continue
		}
		if flat[key] != nil { // a section with nothing in it is no fault
			faults = append(faults, fmt.Sprintf("%s: %q is not a setting; `carillon config reference` lists them", path, key))
		}
		delete(flat, key)
	}
	if err := k.Load(confmap.Provider(flat, delim), nil); err != nil {
		faults = append(faults, fmt.Sprintf("%s: %s", path, err))
	}
	return faults
}

// variables reads the environment.
func (f source) variables(list []setting) (provider *env.Env, unknown []string) {
	keys := map[string]string{}
	for _, s := range list {
		keys[s.env()] = s.key
	}
	for _, v := range f.environ {
		name, value, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, envPrefix) && keys[name] == "" && value != "" && !ownVariable(name) {
			unknown = append(unknown, name)
		}
	}
	return env.Provider(delim, env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return f.environ },
		TransformFunc: func(name, value string) (string, any) {
			if value == "" {
				return "", nil
			}
			return keys[name], value
		},
	}), unknown
}

// ownVariable knows the variables that are no settings: of this program, and
// those that Kubernetes makes for a service named carillon.
func ownVariable(name string) bool {
	rest := strings.TrimPrefix(name, envPrefix)
	return slices.Contains([]string{"CONFIG", "KEY", "URL", "TENANT", "FAILPOINTS"}, rest) ||
		rest == "PORT" || strings.HasPrefix(rest, "PORT_") || strings.HasPrefix(rest, "SERVICE_")
}

// changed reads the flags that were given.
func (f source) changed(k *koanf.Koanf, list []setting) *posflag.Posflag {
	keys := map[string]string{}
	for _, s := range list {
		if s.flag() != "" {
			keys[s.flag()] = s.key
		}
	}
	return posflag.ProviderWithFlag(f.flags, delim, k, func(flag *pflag.Flag) (string, any) {
		if !flag.Changed {
			return "", nil
		}
		return keys[flag.Name], flag.Value.String()
	})
}
