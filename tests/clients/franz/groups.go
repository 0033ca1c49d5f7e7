package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// member is one group consumer: its client, and what it has been given to read.
type member struct {
	client   *kgo.Client
	mu       sync.Mutex
	assigned map[string]map[int32]bool
}

func (m *member) change(parts map[string][]int32, has bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for t, ps := range parts {
		if m.assigned[t] == nil {
			m.assigned[t] = map[int32]bool{}
		}
		for _, p := range ps {
			if has {
				m.assigned[t][p] = true
			} else {
				delete(m.assigned[t], p)
			}
		}
	}
}

func (d *driver) join(c *Command) (map[string]any, error) {
	m := &member{assigned: map[string]map[int32]bool{}}
	changed := func(has bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { m.change(parts, has) }
	}
	opts := []kgo.Opt{kgo.ConsumerGroup(c.Group), kgo.ConsumeTopics(c.Topics...), kgo.DisableAutoCommit(), kgo.ClientID(c.Member),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.OnPartitionsAssigned(changed(true)), kgo.OnPartitionsRevoked(changed(false)), kgo.OnPartitionsLost(changed(false))}
	if c.Protocol == "consumer" {
		opts = append(opts, kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()))
	} else {
		opts = append(opts, kgo.SessionTimeout(time.Duration(c.SessionMs)*time.Millisecond), kgo.HeartbeatInterval(500*time.Millisecond))
	}
	client, err := d.base(opts...)
	if err != nil {
		return nil, err
	}
	m.client = client
	d.members[c.Member] = m
	return map[string]any{}, nil
}

func (d *driver) take(ctx context.Context, c *Command) (map[string]any, error) {
	m := d.members[c.Member]
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.TimeoutMs)*time.Millisecond)
	defer cancel()
	records := [][]any{}
	for ctx.Err() == nil && (c.Count == 0 || len(records) < c.Count) {
		limit := 10000
		if c.Count > 0 {
			limit = c.Count - len(records)
		}
		fetches := m.client.PollRecords(ctx, limit)
		for _, e := range fetches.Errors() {
			var known *kerr.Error
			if errors.As(e.Err, &known) {
				return nil, e.Err
			}
		}
		for _, r := range fetches.Records() {
			records = append(records, []any{r.Topic, r.Partition, r.Offset})
		}
	}
	assigned := [][]any{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for t, ps := range m.assigned {
		for p := range ps {
			assigned = append(assigned, []any{t, p})
		}
	}
	return map[string]any{"records": records, "assigned": assigned}, nil
}

func (d *driver) commit(ctx context.Context, c *Command) (map[string]any, error) {
	m := d.members[c.Member]
	if err := m.client.CommitUncommittedOffsets(ctx); err != nil {
		return nil, err
	}
	offsets := [][]any{}
	for t, ps := range m.client.CommittedOffsets() {
		for p, o := range ps {
			if o.Offset >= 0 {
				offsets = append(offsets, []any{t, p, o.Offset})
			}
		}
	}
	return map[string]any{"offsets": offsets}, nil
}

func (d *driver) leave(c *Command) (map[string]any, error) {
	m, ok := d.members[c.Member]
	if !ok {
		return nil, fmt.Errorf("no member %s", c.Member)
	}
	delete(d.members, c.Member)
	m.client.Close()
	return map[string]any{}, nil
}
