package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// heading says where the figures come from.
func (b *bench) heading(args []string) {
	command := strings.TrimSpace("./scripts/bench " + strings.Join(args, " "))
	b.printf("- machine: %s\n- commit: %s\n- command: `%s`\n- date: %s\n",
		machine(), commit(), command, time.Now().UTC().Format(time.DateOnly))
}

// machine is processor, cores, memory, system and the versions that matter.
func machine() string {
	return fmt.Sprintf("%s, %d cores, %s; %s, %s; %s; load before the start %s",
		field("/proc/cpuinfo", "model name"), runtime.NumCPU(), memory(), system(), runtime.Version(),
		redisVersion(), loadAverage())
}

func memory() string {
	var kb int
	if _, err := fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kb); err != nil {
		return "memory unknown"
	}
	return fmt.Sprintf("%.0f GiB", float64(kb)/(1<<20))
}

func system() string {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + strings.TrimSpace(string(kernel))
}

func loadAverage() string {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(load), " ")
	return first
}

// field returns the value of the first "name : value" line of a file in /proc.
func field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func redisVersion() string {
	out, err := exec.Command("redis-server", "--version").Output()
	words := strings.Fields(string(out))
	if err != nil || len(words) < 3 {
		return "redis-server missing"
	}
	return "Redis " + strings.TrimPrefix(words[2], "v=")
}

// commit is what is checked out where the command is run, and whether it is
// changed.
func commit() string {
	git := func(args ...string) string {
		out, err := exec.Command("git", args...).Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	c := git("rev-parse", "--short=12", "HEAD")
	switch {
	case c == "":
		return "unknown"
	case git("status", "--porcelain") != "":
		return c + " with uncommitted changes"
	}
	return c
}

// executable is this program, to be started again as a child.
func executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return filepath.EvalSymlinks(path)
}
