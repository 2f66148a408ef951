package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// Load reads the configuration: the defaults, then the file at path, then the
// variables SLUICE_* of environ (each NAME=value, as from os.Environ), and checks
// the result. An empty path is [DefaultFile]. Unless explicit, a file that is not
// there is none. The error is an *InvalidError.
func Load(path string, explicit bool, environ []string) (*Config, error) {
	if path == "" {
		path = DefaultFile
	}
	l := newLoader()
	l.readFile(path, explicit)
	l.readEnviron(environ)
	if !l.bad["relay.preset"] {
		l.followPreset()
	}
	l.readPassword()
	l.checkCA()
	l.checkVerdicts()
	l.problems = append(l.problems, l.breaches(l.bad)...)
	if err := invalid(l.problems); err != nil {
		return nil, err
	}
	l.warnings = append(l.warnings, l.suspicions()...)
	return l.Config, nil
}

// loader is a Config in the making.
type loader struct {
	*Config
	byPath   map[string]key
	bad      map[string]bool // keys that have a problem of their own
	problems []Problem
}

func newLoader() *loader {
	l := &loader{Config: Default(), byPath: map[string]key{}, bad: map[string]bool{}}
	for _, k := range l.keys() {
		l.byPath[k.path] = k
	}
	return l
}

func (l *loader) fault(where, key, format string, args ...any) {
	if key != "" {
		l.bad[key] = true
	}
	l.problems = append(l.problems, Problem{where, key, fmt.Sprintf(format, args...)})
}

// set gives a key the value raw, read at where; file and environment both end here.
func (l *loader) set(k key, where string, raw []string) {
	l.origins[k.path] = origin{where, true}
	delete(l.bad, k.path)
	if err := k.value.parse(raw); err != nil {
		shown := fmt.Sprintf("%q", strings.Join(raw, ", "))
		switch k.value.(type) {
		case redisURL:
			shown = quoted(k)
		case password:
			shown = "(not shown)"
		}
		l.fault(where, k.path, "%s: %v", shown, err)
	}
}

func (l *loader) readFile(path string, explicit bool) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !explicit:
		return
	case errors.Is(err, fs.ErrNotExist):
		l.fault(path, "", "no such file; --config names a file that must exist")
		return
	case err != nil:
		l.fault(path, "", "read it: %v", reason(err))
		return
	}
	l.file = path
	l.readYAML(path, data)
	if othersRead(path) && !l.Relay.Password.Empty() {
		l.warnings = append(l.warnings, path+": everybody on this machine can read the password in it: chmod 600, or use relay.password_file")
	}
}

// serviceLink matches what Kubernetes puts into every container for a Service whose
// name begins with sluice: nobody wrote these, so nobody is to be told.
var serviceLink = regexp.MustCompile(`^SLUICE_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=|^SLUICE_(.*_)?PORT=(tcp|udp|sctp)://`)

func (l *loader) readEnviron(environ []string) {
	byEnv := map[string]key{}
	for _, k := range l.byPath {
		byEnv[k.env()] = k
	}
	for _, e := range environ {
		name, v, ok := strings.Cut(e, "=")
		if !ok || !strings.HasPrefix(name, envPrefix) || serviceLink.MatchString(e) {
			continue
		}
		k, known := byEnv[name]
		switch {
		case known:
			l.setText(k, name, v)
		case !l.readMember(name, v):
			l.fault(name, "", "unknown environment variable%s", suggest(name, slices.Sorted(maps.Keys(byEnv))))
		}
	}
}

// setText is set for a value in one line.
func (l *loader) setText(k key, where, v string) {
	if k.isList() {
		l.set(k, where, splitList(v))
		return
	}
	l.set(k, where, []string{v})
}

// splitList reads a list written in one line: 200/1s, 500000/24h.
func splitList(s string) []string {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	list := strings.Split(s, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// readPassword takes the password from its file. One newline at the end is the
// editor's, not the password's.
func (l *loader) readPassword() {
	const at = "relay.password_file"
	r := &l.Relay
	if r.PasswordFile == "" || l.bad[at] {
		return
	}
	if !r.Password.Empty() {
		l.fault(l.where(at), at, "%q: relay.password is set too (%s): leave one of them out", r.PasswordFile, l.origin("relay.password"))
		return
	}
	r.PasswordFile = l.resolve(at, r.PasswordFile)
	data, err := os.ReadFile(r.PasswordFile)
	if err != nil {
		l.fault(l.where(at), at, "%q: %v", r.PasswordFile, reason(err))
		return
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch err := checkLine(s); {
	case s == "":
		l.fault(l.where(at), at, "%q: the file is empty: want the password on one line", r.PasswordFile)
		return
	case err != nil:
		l.fault(l.where(at), at, "%q: the password in it has a %v", r.PasswordFile, err)
		return
	}
	r.Password = NewSecret(s)
	l.origins["relay.password"] = origin{at, true}
	if othersRead(r.PasswordFile) {
		l.warnings = append(l.warnings, r.PasswordFile+": everybody on this machine can read the password in it: chmod 600")
	}
}

func (l *loader) checkCA() {
	const at = "relay.ca_file"
	if l.Relay.CAFile == "" || l.Relay.TLS == NoTLS || l.bad[at] {
		return
	}
	l.Relay.CAFile = l.resolve(at, l.Relay.CAFile)
	if _, err := l.Relay.CertPool(); err != nil {
		l.fault(l.where(at), at, "%q: %v", l.Relay.CAFile, reason(err))
	}
}

// checkVerdicts wants the rules to be a file; what it holds is for who reads it.
func (l *loader) checkVerdicts() {
	const at = "verdicts.file"
	v := &l.Verdicts
	if v.File == "" || l.bad[at] {
		return
	}
	v.File = l.resolve(at, v.File)
	switch info, err := os.Stat(v.File); {
	case err != nil:
		l.fault(l.where(at), at, "%q: %v", v.File, reason(err))
	case info.IsDir():
		l.fault(l.where(at), at, "%q: a directory: want a file of rules", v.File)
	}
}

// resolve reads a relative path as relative to the file it was written in; one from
// the environment, as usual, to the working directory.
func (l *loader) resolve(path, name string) string {
	if filepath.IsAbs(name) || l.file == "" || !strings.HasPrefix(l.origin(path), l.file+":") {
		return name
	}
	return filepath.Join(filepath.Dir(l.file), name)
}

// reason takes operation and path off a file error: the message has them already.
func reason(err error) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// othersRead reports whether users other than the owner and the group can read
// the file. Windows keeps no such bits.
func othersRead(path string) bool {
	info, err := os.Stat(path)
	return err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o004 != 0
}
