package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// server is a server in its own process, so that its CPU time is its own.
type server struct {
	cmd   *exec.Cmd
	url   string
	admin string // URL of the metrics' listener
	key   string // of the first tenant
	keys  []string
}

// startServer runs this program as a server, with tenants in its database.
func startServer(ctx context.Context, config, database string, tenants ...string) (*server, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env := []string{"CARILLON_CONFIG=" + config, "CARILLON_DATABASE_URL=" + database, "CARILLON_LISTEN=127.0.0.1:0",
		"CARILLON_ADMIN_LISTEN=127.0.0.1:0", "CARILLON_LOG_FORMAT=json"}
	command := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // this program itself
		cmd.Env = env
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	ring, err := command("key-ring", "init")
	if err != nil {
		return nil, fmt.Errorf("make a key ring: %w", err)
	}
	env = append(env, "CARILLON_KEY_RING="+ring)
	s := &server{cmd: exec.CommandContext(ctx, program, "serve")} //nolint:gosec // this program itself
	for _, tenant := range tenants {
		if _, err := command("tenant", "create", tenant); err != nil {
			return nil, fmt.Errorf("make a tenant: %w", err)
		}
		key, err := command("key", "create", "--tenant", tenant, "--scopes", "send,devices,read,webhooks,credentials")
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		s.keys = append(s.keys, key)
	}
	s.key = s.keys[0]
	s.cmd.Env = env
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	log, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	if !s.readAddresses(log) {
		return nil, errors.Join(errors.New("the server did not start"), s.cmd.Wait())
	}
	return s, nil
}

// readAddresses waits until the server has logged where it listens. It tells
// whether it has.
func (s *server) readAddresses(log io.Reader) bool {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct{ Msg, URL string }
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		switch line.Msg {
		case "carillon serves":
			s.url = line.URL
		case "metrics and profiles":
			s.admin = strings.TrimSuffix(line.URL, "/metrics")
			go func() {
				for lines.Scan() { // keep the pipe empty
				}
			}()
			return true
		}
	}
	return false
}

// writeProfile writes a CPU profile of the server while it is under load.
func (s *server) writeProfile(ctx context.Context, file string, length time.Duration) (err error) {
	if file == "" {
		return nil
	}
	url := fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", s.admin, max(1, int(length.Seconds())))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile the server: %w", err)
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, res.Body)
	return err
}

func (s *server) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	return s.cmd.Wait()
}

// cpu is the processor time that the server has used.
func (s *server) cpu() time.Duration { return processCPU(s.cmd.Process.Pid) }
