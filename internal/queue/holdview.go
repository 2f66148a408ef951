package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// holdView is what a member knows of all holds. It is replaced, never changed.
type holdView struct {
	at      time.Time // when the reading began that it comes from
	streams map[mail.Stream]streamHolds
	logins  map[mail.Stream]string // the fields of holds on this member's logins
}

type streamHolds struct {
	version int64
	raw     map[string]string // as stored, to be written again where Redis loses it
	holds   map[string]Hold
}

// UseLogin says which credentials, by their fingerprint, this member logs in to a
// stream with: a hold on them holds it, one on others does not. Call it before the
// stream's first Claim.
func (m *Member) UseLogin(s mail.Stream, fingerprint string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := *m.view.Load()
	logins := map[mail.Stream]string{s: wholeStream + fingerprint}
	for other, field := range v.logins {
		if other != s {
			logins[other] = field
		}
	}
	v.logins = logins
	m.view.Store(&v)
}

// login is the fingerprint of the member's credentials, "" when it has not said so.
func (m *Member) login(s mail.Stream) string {
	return strings.TrimPrefix(m.view.Load().logins[s], wholeStream)
}

// Held returns what holds a campaign of a stream for this member, as of the last
// heartbeat (a quarter of a second ago while Redis answers): its own hold, the
// stream's, or the login's. A member that has not heard of Redis for 3 s holds
// everything: somebody may have paused it.
func (m *Member) Held(s mail.Stream, campaign string) (Hold, bool) {
	v := m.view.Load()
	if time.Since(v.at) > confirmAge {
		return Hold{State: HoldHeld, Why: "redis does not answer", Since: v.at.UTC(), Lift: "itself, once redis answers"}, true
	}
	if h := m.rewound.Load(); h != nil {
		return *h, true
	}
	holds := v.streams[s].holds
	if len(holds) == 0 {
		return Hold{}, false
	}
	if h, ok := holds[campaign]; ok {
		return h, true
	}
	if h, ok := holds[wholeStream]; ok {
		return h, true
	}
	h, ok := holds[v.logins[s]]
	return h, ok
}

// HeldGroup returns what holds a stream's mail to a destination group.
func (m *Member) HeldGroup(s mail.Stream, group string) (Hold, bool) {
	holds := m.view.Load().streams[s].holds
	if len(holds) == 0 || group == "" {
		return Hold{}, false
	}
	h, ok := holds[groupMark+group]
	return h, ok && h.stands(m.Now())
}

// recheck is how often a block is looked at whose recipients wait for a group.
const recheck = 5 * time.Minute

// Recheck is when (ms of Redis's clock) a recipient who waits for a held group should
// be looked at again: when the hold ends, or sooner, because an operator may lift it.
func (h Hold) Recheck(now int64) int64 {
	at := now + recheck.Milliseconds()
	if !h.Until.IsZero() {
		at = min(at, max(now, h.Until.UnixMilli()))
	}
	return at
}

// firstHolds reads the holds before anything is claimed.
func (m *Member) firstHolds(ctx context.Context) error {
	pipe, asked := m.pulse.Pipeline(), time.Now()
	versions := map[mail.Stream]*redis.SliceCmd{}
	for _, s := range mail.Streams() {
		versions[s] = pipe.HMGet(ctx, m.q.keys.held(s), versionField)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	return m.readHolds(ctx, versions, asked)
}

// readHolds brings the member's view up to date. versions are those of the streams'
// holds, by a call that began at asked. What has changed is read, and then confirmed to
// those who wait for it.
func (m *Member) readHolds(ctx context.Context, versions map[mail.Stream]*redis.SliceCmd, asked time.Time) error {
	old := m.view.Load()
	pipe := m.pulse.Pipeline()
	changed := map[mail.Stream]*redis.MapStringStringCmd{}
	for s, cmd := range versions {
		var version int64 // stays 0 where there has never been a hold
		if v, ok := cmd.Val()[0].(string); ok {
			version, _ = strconv.ParseInt(v, 10, 64)
		}
		if old.streams[s].version != version {
			changed[s] = pipe.HGetAll(ctx, m.q.keys.held(s))
		}
	}
	if len(changed) > 0 {
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("read holds: %w", err)
		}
	}
	fresh := map[mail.Stream]streamHolds{}
	for s, cmd := range changed {
		fresh[s] = m.decodeHolds(s, cmd.Val())
	}
	m.setView(asked, fresh)
	return m.confirmHolds(ctx)
}

func (m *Member) decodeHolds(s mail.Stream, raw map[string]string) streamHolds {
	sh := streamHolds{raw: raw, holds: make(map[string]Hold, len(raw))}
	for field, data := range raw {
		if field == versionField {
			sh.version, _ = strconv.ParseInt(data, 10, 64)
			continue
		}
		h, err := decodeHold(data)
		if err != nil {
			m.q.log.Error("unreadable hold", "stream", s, "field", field, "err", err)
		}
		sh.holds[field] = h
	}
	return sh
}

// setView replaces streams of the view that was read at asked.
func (m *Member) setView(asked time.Time, fresh map[mail.Stream]streamHolds) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := *m.view.Load()
	v.at = asked
	if len(fresh) > 0 {
		streams := maps.Clone(v.streams)
		if streams == nil {
			streams = map[mail.Stream]streamHolds{}
		}
		maps.Copy(streams, fresh)
		v.streams = streams
	}
	m.view.Store(&v)
}

// noteHold adds a hold that this member has just made, before the next heartbeat.
func (m *Member) noteHold(s mail.Stream, field, data string) Hold {
	h, err := decodeHold(data)
	if err != nil {
		m.q.log.Error("unreadable hold", "stream", s, "field", field, "err", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	v := *m.view.Load()
	sh := v.streams[s]
	raw, holds := map[string]string{field: data}, map[string]Hold{field: h}
	for f, d := range sh.raw {
		if f != field {
			raw[f], holds[f] = d, sh.holds[f]
		}
	}
	streams := map[mail.Stream]streamHolds{s: {sh.version, raw, holds}}
	for other, sh := range v.streams {
		if other != s {
			streams[other] = sh
		}
	}
	v.streams = streams
	m.view.Store(&v)
	return h
}

// confirmHolds says in Redis which holds this member obeys, and with which logins it
// works, where that has changed.
func (m *Member) confirmHolds(ctx context.Context) error {
	v := m.view.Load()
	var b strings.Builder
	for _, s := range mail.Streams() {
		fmt.Fprintf(&b, "%s=%d:%s ", s, v.streams[s].version, v.logins[s])
	}
	m.mu.Lock()
	same := b.String() == m.said
	m.said = b.String()
	m.mu.Unlock()
	if same {
		return nil
	}
	if err := m.pulse.HSet(ctx, m.q.keys.seen(), m.nonce, b.String()).Err(); err != nil {
		m.forgetSaid()
		return fmt.Errorf("confirm holds: %w", err)
	}
	return nil
}

// forgetSaid makes the next heartbeat confirm the holds again.
func (m *Member) forgetSaid() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said = ""
}

// parseSeen reads what a member has said with confirmHolds about a stream.
func parseSeen(said string, s mail.Stream) (version int64, login string) {
	for part := range strings.FieldsSeq(said) {
		if rest, ok := strings.CutPrefix(part, string(s)+"="); ok {
			num, login, _ := strings.Cut(rest, ":")
			version, _ := strconv.ParseInt(num, 10, 64)
			return version, login
		}
	}
	return 0, ""
}

// ErrUnconfirmed is returned when a campaign is held, but a worker that is alive has
// not said that it has stopped.
var ErrUnconfirmed = errors.New("the campaign is held, but a worker has not confirmed it")

// How long awaitSeen waits for a member that beats, and for one that does not: that
// one holds everything by itself by then (see Held).
const (
	seenTimeout = 5 * time.Second
	silentAfter = confirmAge + 500*time.Millisecond
	seenEvery   = 25 * time.Millisecond
)

// awaitSeen waits until every member obeys the holds of a version, or newer ones.
func (q *Queue) awaitSeen(ctx context.Context, s mail.Stream, version int64) error {
	beats := map[string]sighting{}
	for begun := time.Now(); ; {
		pipe := q.rdb.Pipeline()
		counts, said := pipe.HGetAll(ctx, q.keys.beats()), pipe.HGetAll(ctx, q.keys.seen())
		if _, err := pipe.Exec(ctx); err != nil {
			return q.unreachable(err)
		}
		late := ""
		now := time.Now()
		for nonce, count := range counts.Val() {
			if seen, _ := parseSeen(said.Val()[nonce], s); seen >= version {
				continue
			}
			if b, ok := beats[nonce]; !ok || b.count != count {
				beats[nonce] = sighting{count, now}
			} else if now.Sub(b.at) > silentAfter {
				continue
			}
			late = nonce
		}
		if late == "" {
			return nil
		}
		if now.Sub(begun) > seenTimeout {
			return fmt.Errorf("%w (worker %s): its mail stops with its next heartbeat; repeat the command to be sure", ErrUnconfirmed, late)
		}
		if err := pause(ctx, seenEvery); err != nil {
			return err
		}
	}
}

// heldLogin finds a login's hold that stops a stream: one, where no member has said
// that it works with another login.
func (q *Queue) heldLogin(ctx context.Context, s mail.Stream, holds map[string]string) (field string, found bool, err error) {
	for f := range holds {
		if len(f) > len(wholeStream) && strings.HasPrefix(f, wholeStream) && (!found || f < field) {
			field, found = f, true
		}
	}
	if !found {
		return "", false, nil
	}
	pipe := q.rdb.Pipeline()
	beats, said := pipe.HGetAll(ctx, q.keys.beats()), pipe.HGetAll(ctx, q.keys.seen())
	if _, err := pipe.Exec(ctx); err != nil {
		return "", false, q.unreachable(err)
	}
	for nonce := range beats.Val() {
		if _, login := parseSeen(said.Val()[nonce], s); login != "" && holds[login] == "" {
			return "", false, nil
		}
	}
	return field, true, nil
}

// remindHolds writes again the holds that this member saw and a restarted Redis lost.
func (m *Member) remindHolds(ctx context.Context, rdb *redis.Client) error {
	m.forgetSaid()
	for s, sh := range m.view.Load().streams {
		if sh.version == 0 {
			continue
		}
		args := []any{sh.version}
		for field, data := range sh.raw {
			if field != versionField {
				args = append(args, field, data)
			}
		}
		if err := m.q.scripts.rehold.Run(ctx, rdb, []string{m.q.keys.held(s)}, args...).Err(); err != nil {
			return fmt.Errorf("holds of stream %s again: %w", s, err)
		}
	}
	return nil
}

// forgetAfter is how long after its end a group's hold still makes the next one longer.
const forgetAfter = 24 * time.Hour

// dropLapsed removes holds of groups that ended long ago.
func (m *Member) dropLapsed(ctx context.Context, s mail.Stream) error {
	now := m.Now()
	for field, h := range m.view.Load().streams[s].holds {
		if h.Until.IsZero() || h.stands(now-forgetAfter.Milliseconds()) {
			continue
		}
		if err := m.q.scripts.lift.Run(ctx, m.q.rdb, []string{m.q.keys.held(s), m.q.keys.window(s, field)}, field, "1").Err(); err != nil {
			return fmt.Errorf("drop hold: %w", err)
		}
	}
	return nil
}
