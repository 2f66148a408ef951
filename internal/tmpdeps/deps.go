// Package tmpdeps pins modules while the packages that use them are being written.
package tmpdeps

import (
	_ "github.com/alicebob/miniredis/v2"
	_ "github.com/emersion/go-message"
	_ "github.com/emersion/go-message/mail"
	_ "github.com/emersion/go-sasl"
	_ "github.com/emersion/go-smtp"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/hibiken/asynq"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/redis/go-redis/v9"
	_ "github.com/miekg/dns"
	_ "go.uber.org/goleak"
	_ "go.yaml.in/yaml/v3"
	_ "golang.org/x/net/html"
	_ "golang.org/x/text/encoding/korean"
	_ "golang.org/x/time/rate"
	_ "golang.org/x/term"
	_ "pgregory.net/rapid"
)
