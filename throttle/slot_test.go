package throttle

import (
	"strings"
	"testing"
)

// hashTag is the part of a key that Redis Cluster hashes.
func hashTag(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

// hashSlot is CRC-16/XMODEM modulo 16384, as Redis Cluster has it.
func hashSlot(s string) int {
	crc := uint16(0)
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % 16384
}

func TestHashSlot(t *testing.T) {
	t.Parallel()
	if got := hashSlot("123456789"); got != 0x31c3 { // the example of the cluster specification
		t.Errorf("got %#x, want 0x31c3", got)
	}
	if got := hashTag("a:{b:c}:d{e}"); got != "b:c" {
		t.Errorf("got %q", got)
	}
}
