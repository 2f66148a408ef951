package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/producer"
)

// enqueuers is how many goroutines the baseline enqueues from; more do not help it.
const enqueuers = 16

// enqueue compares the way from a CSV file into Redis.
func (b *bench) enqueue() error {
	many, few := b.large, min(b.large, 60_000)
	manyRows, err := b.list(many)
	if err != nil {
		return err
	}
	fewRows, err := b.list(few)
	if err != nil {
		return err
	}
	var ours, asynqs series
	for run := range b.runs {
		rate, err := b.rowsPerSecond(many, func(ctx context.Context, s *redisServer, turn int) error { return sendList(ctx, s, manyRows, turn) })
		if err != nil {
			return err
		}
		ours = append(ours, rate)
		rate, err = b.rowsPerSecond(few, func(ctx context.Context, s *redisServer, _ int) error {
			_, err := enqueueEach(ctx, s.rdb, fewRows)
			return err
		})
		if err != nil {
			return fmt.Errorf("baseline: %w", err)
		}
		asynqs = append(asynqs, rate)
		b.progress("run %d of %d: %.0f and %.0f rows/s", run+1, b.runs, ours[run], rate)
	}
	b.table([]string{"", "rows/s", "÷ baseline"}, [][]string{
		{fmt.Sprintf("producer.Send, %s rows of a CSV file", number(float64(many), 0)), ours.show(0), ours.over(asynqs).show(1)},
		{fmt.Sprintf("baseline: asynq.Client, one task a row, %d goroutines, %s rows", enqueuers, number(float64(few), 0)), asynqs.show(0), "1"},
	})
	b.printf("\nReal Redis with AOF everysec. Median (least–most) of %d runs of at least %v each, in turn. Send reads the list twice: "+
		"to know it, and to check, cut and store it.\n", b.runs, b.window)
	return nil
}

// rowsPerSecond repeats f, which enqueues n rows, on a fresh Redis until the window
// is over.
func (b *bench) rowsPerSecond(n int, f func(ctx context.Context, s *redisServer, turn int) error) (float64, error) {
	s, err := b.startRedis()
	if err != nil {
		return 0, err
	}
	defer s.stop()
	start, turns := time.Now(), 0
	for time.Since(start) < b.window {
		if err := f(b.ctx, s, turns); err != nil {
			return 0, err
		}
		turns++
	}
	return float64(n*turns) / time.Since(start).Seconds(), nil
}

// sendList enqueues the whole list as a campaign of its own.
func sendList(ctx context.Context, s *redisServer, list string, turn int) error {
	q, err := s.open()
	if err != nil {
		return err
	}
	defer q.Close()
	r, err := wireLetter().request(fmt.Sprintf("campaign-%d", turn), list)
	if err != nil {
		return err
	}
	res, err := producer.Send(ctx, q, r)
	if err != nil {
		return err
	}
	if res.Existing || res.Door.Queued() != res.Door.Recipients {
		return fmt.Errorf("of %d rows, %d were enqueued", res.Door.Recipients, res.Door.Queued())
	}
	return nil
}

// mailTask is the obvious payload: which template, for whom.
type mailTask struct {
	Template string `json:"template"`
	Email    string `json:"email"`
	Name     string `json:"name"`
}

// mailQueue is the task type and the queue of the obvious program.
const mailQueue = "mail"

// enqueueEach is the obvious producer: one task a row.
func enqueueEach(ctx context.Context, rdb *redis.Client, list string) (int, error) {
	f, err := os.Open(list)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	client := asynq.NewClientFromRedisClient(rdb)
	tasks, failed := make(chan mailTask, enqueuers), make(chan error, enqueuers)
	var wg sync.WaitGroup
	for range enqueuers {
		wg.Go(func() {
			for t := range tasks {
				payload, err := json.Marshal(t)
				if err == nil {
					_, err = client.EnqueueContext(ctx, asynq.NewTask(mailQueue, payload), asynq.Queue(mailQueue))
				}
				if err != nil {
					failed <- err
					return
				}
			}
		})
	}
	n, err := feedRows(f, tasks, failed)
	close(tasks)
	wg.Wait()
	select {
	case ferr := <-failed:
		err = errors.Join(err, ferr)
	default:
	}
	return n, err
}

// feedRows hands every row of a list to the enqueuers.
func feedRows(list io.Reader, tasks chan<- mailTask, failed <-chan error) (int, error) {
	rows := csv.NewReader(list)
	rows.ReuseRecord = true
	if _, err := rows.Read(); err != nil {
		return 0, fmt.Errorf("header: %w", err)
	}
	for n := 0; ; n++ {
		row, err := rows.Read()
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		}
		select {
		case tasks <- mailTask{"newsletter", row[0], row[1]}:
		case err := <-failed:
			return n, err
		}
	}
}
