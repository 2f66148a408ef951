package main

import (
	"testing"

	"github.com/sluicemail/sluice/internal/redistest"
)

func zzRedis(t *testing.T) string { return redistest.Start(t).URL() }
