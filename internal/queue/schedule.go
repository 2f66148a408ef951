package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"

	"github.com/sluicemail/sluice/internal/fault"
	"github.com/sluicemail/sluice/internal/mail"
)

// sendTask is the type of the one kind of asynq task there is.
const sendTask = "send"

// sendJob is a task's payload: look at this block. It carries no recipient.
type sendJob struct {
	Campaign string `json:"c"`
	Block    int    `json:"n"`
	Seq      int64  `json:"seq"`
}

// jobTimeout only has to be longer than any block takes; asynq would end a job
// after 30 minutes by itself.
const jobTimeout = 24 * time.Hour

// jobRetries is above zero because asynq archives a task whose worker crashed
// otherwise. It decides nothing.
const jobRetries = 3

// Pump enqueues the jobs that come next in a stream, so that at most pending are
// waiting. It is called whenever a job ends or work arrives, by whoever knows.
func (q *Queue) Pump(ctx context.Context, s mail.Stream, pending int) error {
	return q.pump(ctx, s, pending, "")
}

// Pump is Queue.Pump for a worker, which chooses nothing while its login is held, or
// while Redis has come back with older data.
func (m *Member) Pump(ctx context.Context, s mail.Stream, pending int) error {
	if m.rewound.Load() != nil {
		return nil
	}
	return m.q.pump(ctx, s, pending, m.login(s))
}

func (q *Queue) pump(ctx context.Context, s mail.Stream, pending int, login string) error {
	res, err := q.choose(ctx, s, pending, login)
	if err != nil {
		return err
	}
	client := asynq.NewClientFromRedisClient(q.rdb)
	var errs error // what is not enqueued the reconciler makes again
	for i := 0; i+1 < len(res); i += 2 {
		seq, err := strconv.ParseInt(res[i+1], 10, 64)
		if err == nil {
			err = q.enqueue(ctx, client, s, res[i], seq)
		}
		errs = errors.Join(errs, err)
	}
	return errs
}

// choose picks the next blocks, as block, turn, block, turn, …
func (q *Queue) choose(ctx context.Context, s mail.Stream, pending int, login string) ([]string, error) {
	k := q.keys
	keys := []string{k.ready(s), k.ring(s), k.next(s), k.total(s), k.queued(s), k.held(s), k.later(s), k.seq(s), k.parked(s), k.canary(s)}
	res, err := q.scripts.choose.Run(ctx, q.rdb, keys, pending, login).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("choose blocks: %w", err)
	}
	return res, nil
}

// unpark gives back to the schedule what was put aside of a campaign ("" = of all),
// unless that is paused. What is left when it is interrupted, the reconciler does.
func (q *Queue) unpark(ctx context.Context, s mail.Stream, campaign string) error {
	k := q.keys
	keys := []string{k.parked(s), k.held(s), k.ready(s), k.ring(s)}
	for {
		moved, err := q.scripts.unpark.Run(ctx, q.rdb, keys, campaign, unparkMost).Int()
		if err != nil {
			return fmt.Errorf("unpark blocks: %w", err)
		}
		if moved < unparkMost {
			return nil
		}
	}
}

// unparkMost bounds one call of the script.
const unparkMost = 1000

func taskID(block string, seq int64) string {
	return strings.ReplaceAll(block, "/", ":") + ":" + strconv.FormatInt(seq, 10)
}

// enqueue makes a block's job. A lost answer may hide a success, so a conflict of
// task ids, which name block and turn, is one too.
func (q *Queue) enqueue(ctx context.Context, client *asynq.Client, s mail.Stream, block string, seq int64) error {
	campaign, n, ok := parseBlockID(block)
	if !ok {
		return fmt.Errorf("block %q: %w", block, errCorrupt)
	}
	payload, err := json.Marshal(sendJob{campaign, n, seq})
	if err != nil {
		return fmt.Errorf("encode job: %w", err)
	}
	_, err = client.EnqueueContext(ctx, asynq.NewTask(sendTask, payload), asynq.Queue(q.keys.asynqQueue(s)),
		asynq.TaskID(taskID(block, seq)), asynq.MaxRetry(jobRetries), asynq.Timeout(jobTimeout))
	if err != nil && !errors.Is(err, asynq.ErrTaskIDConflict) {
		return fmt.Errorf("enqueue block %s: %w", block, err)
	}
	return nil
}

// reconcileEvery is how often what is missing is made again; one member does it
// for a stream at a time.
const reconcileEvery = 2 * time.Second

// overdue is how old an entry of the queued index must be before its asynq task is
// looked up, and stuck how long a task may be active without its block claimed.
const (
	overdue = 3 * time.Second
	stuck   = 10 * time.Second
)

func (m *Member) reconcileLoop(ctx context.Context) {
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	var p pass
	for {
		if err := m.reconcileAll(ctx, &p); err != nil && ctx.Err() == nil {
			m.q.log.Debug("reconciling interrupted", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pass is what one pass of the reconciler leaves for the next.
type pass struct {
	idle map[string]bool // claims of ours that nobody here worked on
	aged int64           // how far the campaigns have been looked through for their retention
}

func (m *Member) reconcileAll(ctx context.Context, p *pass) (err error) {
	if m.rewound.Load() != nil {
		return nil // what older data says is not acted on
	}
	if p.idle, err = m.disown(ctx, p.idle); err != nil {
		return err
	}
	for _, s := range mail.Streams() {
		if err := m.reconcile(ctx, s); err != nil {
			return err
		}
	}
	p.aged, err = m.retain(ctx, p.aged)
	return err
}

// disown gives up claims that stand in our name although nobody here works on
// them, because the answer to a claim was lost or its block could not be read.
func (m *Member) disown(ctx context.Context, before map[string]bool) (map[string]bool, error) {
	idle := map[string]bool{}
	for _, s := range mail.Streams() {
		claims, err := m.q.rdb.HGetAll(ctx, m.q.keys.claims(s)).Result()
		if err != nil {
			return before, err
		}
		for id, c := range claims {
			if _, nonce, ok := cutClaim(c); !ok || nonce != m.nonce || m.holdsClaim(id) {
				continue
			}
			if !before[id] {
				idle[id] = true
				continue
			}
			if err := m.q.release(ctx, s, id, c, "0"); err != nil {
				return before, err
			}
		}
	}
	return idle, nil
}

// reconcile makes the missing jobs of a stream again, and opens campaigns whose
// producer died between storing and opening.
func (m *Member) reconcile(ctx context.Context, s mail.Stream) error {
	q := m.q
	turn := (reconcileEvery * 9 / 10).Milliseconds()
	mine, err := q.scripts.lead.Run(ctx, q.rdb, []string{q.keys.leader(s)}, turn).Int()
	if err != nil || mine == 0 || fault.Off("guard.reconciler") {
		return err
	}
	ids, err := q.rdb.SMembers(ctx, q.keys.opening(s)).Result()
	if err != nil {
		return err
	}
	for _, id := range ids {
		c, err := q.campaign(ctx, id)
		switch {
		case errors.Is(err, ErrNoCampaign):
			err = q.rdb.SRem(ctx, q.keys.opening(s), id).Err()
		case err == nil && c.Open:
			err = q.openCampaign(ctx, c)
		}
		if err != nil {
			return err
		}
	}
	if err := q.unpark(ctx, s, ""); err != nil {
		return err
	}
	if err := q.passAll(ctx, s); err != nil {
		return err
	}
	if err := m.dropLapsed(ctx, s); err != nil {
		return err
	}
	return q.remake(ctx, s)
}

// remake enqueues a new job for each queued block whose task asynq has lost, or
// holds without working on it.
func (q *Queue) remake(ctx context.Context, s mail.Stream) error {
	queued, err := q.rdb.HGetAll(ctx, q.keys.queued(s)).Result()
	if err != nil || len(queued) == 0 {
		return err
	}
	now, err := q.now(ctx)
	if err != nil {
		return err
	}
	client, inspector := asynq.NewClientFromRedisClient(q.rdb), asynq.NewInspectorFromRedisClient(q.rdb)
	for block, entry := range queued {
		if _, _, ok := parseBlockID(block); !ok {
			q.log.Error("an entry of the queued index is no block, dropped", "stream", s, "entry", block)
			if err := q.rdb.HDel(ctx, q.keys.queued(s), block).Err(); err != nil {
				return err
			}
			continue
		}
		num, at, _ := strings.Cut(entry, " ")
		seq, _ := strconv.ParseInt(num, 10, 64)
		since, _ := strconv.ParseInt(at, 10, 64)
		age := time.Duration(now-since) * time.Millisecond
		if age < overdue || q.waiting(inspector, s, taskID(block, seq), age) {
			continue
		}
		if seq, err = q.rdb.Incr(ctx, q.keys.seq(s)).Result(); err != nil {
			return err
		}
		if err := q.rdb.HSet(ctx, q.keys.queued(s), block, fmt.Sprintf("%d %d", seq, now)).Err(); err != nil {
			return err
		}
		q.log.Info("job was lost, made again", "stream", s, "block", block)
		if err := q.enqueue(ctx, client, s, block, seq); err != nil {
			return err
		}
	}
	return nil
}

// waiting reports whether asynq will still run a task, as far as can be known.
func (q *Queue) waiting(i *asynq.Inspector, s mail.Stream, id string, age time.Duration) bool {
	info, err := i.GetTaskInfo(q.keys.asynqQueue(s), id)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
		return false
	case err != nil:
		return true // not known: look again at the next pass
	}
	switch info.State {
	case asynq.TaskStatePending, asynq.TaskStateScheduled:
		return true
	case asynq.TaskStateActive, asynq.TaskStateRetry:
		return age < stuck
	}
	return false
}
