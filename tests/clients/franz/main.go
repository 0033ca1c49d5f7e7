// franz-go behind the runner's commands (see ../README.md). It only tells what the client did.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Command is one line of input; fields of other commands stay at their zero value.
type Command struct {
	Op         string            `json:"op"`
	Topic      string            `json:"topic"`
	P          int32             `json:"p"`
	Codec      string            `json:"codec"`
	Acks       *int              `json:"acks"`
	Idempotent bool              `json:"idempotent"`
	BatchBytes int32             `json:"batch_bytes"`
	MaxRequest int32             `json:"max_request"`
	DeliveryMs int64             `json:"delivery_ms"`
	Records    []Record          `json:"records"`
	At         string            `json:"at"`
	Value      int64             `json:"value"`
	Count      int               `json:"count"`
	TimeoutMs  int64             `json:"timeout_ms"`
	Ts         int64             `json:"ts"`
	Partitions int32             `json:"partitions"`
	Configs    map[string]string `json:"configs"`
	Member     string            `json:"member"`
	Group      string            `json:"group"`
	Topics     []string          `json:"topics"`
	Protocol   string            `json:"protocol"`
	SessionMs  int64             `json:"session_ms"`
}

// Record is one record in both directions. Byte slices are base64 in JSON, nil is null.
type Record struct {
	P  int32    `json:"p"`
	O  int64    `json:"o"`
	Ts *int64   `json:"ts"`
	K  []byte   `json:"k"`
	V  []byte   `json:"v"`
	H  []Header `json:"h"`
}

// Header is [name, value].
type Header struct {
	Name  string
	Value []byte
}

// MarshalJSON writes a pair.
func (h Header) MarshalJSON() ([]byte, error) { return json.Marshal([]any{h.Name, h.Value}) }

// UnmarshalJSON reads a pair.
func (h *Header) UnmarshalJSON(b []byte) error {
	pair := []any{&h.Name, &h.Value}
	return json.Unmarshal(b, &pair)
}

type driver struct {
	bootstrap string
	producers map[string]*kgo.Client
	position  map[string]int64
	other     *kgo.Client
	members   map[string]*member
}

func (d *driver) base(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(d.bootstrap), kgo.MetadataMaxAge(time.Second), kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.RetryTimeout(20 * time.Second), kgo.AllowAutoTopicCreation(),
	}, more...)...)
}

func (d *driver) admin() (*kadm.Client, error) {
	if d.other == nil {
		c, err := d.base()
		if err != nil {
			return nil, err
		}
		d.other = c
	}
	return kadm.NewClient(d.other), nil
}

func (d *driver) producer(c *Command) (*kgo.Client, error) {
	acks := -1
	if c.Acks != nil {
		acks = *c.Acks
	}
	if c.BatchBytes == 0 {
		c.BatchBytes = 65536
	}
	if c.MaxRequest > 0 && c.MaxRequest > c.BatchBytes {
		c.BatchBytes = c.MaxRequest // in this library the limit of one record is that of one batch
	}
	if c.DeliveryMs == 0 {
		c.DeliveryMs = 30000
	}
	key := fmt.Sprint(c.Codec, acks, c.Idempotent, c.BatchBytes)
	if p, ok := d.producers[key]; ok {
		return p, nil
	}
	codec := map[string]kgo.CompressionCodec{"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}[c.Codec]
	opts := []kgo.Opt{kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(100 * time.Millisecond),
		kgo.ProducerBatchMaxBytes(c.BatchBytes), kgo.RecordPartitioner(kgo.ManualPartitioner())}
	switch acks {
	case 0:
		opts = append(opts, kgo.RequiredAcks(kgo.NoAck()))
	case 1:
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()))
	}
	if !c.Idempotent {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	p, err := d.base(opts...)
	if err == nil {
		d.producers[key] = p
	}
	return p, err
}

func (d *driver) produce(ctx context.Context, c *Command) (map[string]any, error) {
	p, err := d.producer(c)
	if err != nil {
		return nil, err
	}
	// Not RecordDeliveryTimeout: it counts from the record's timestamp, and ours lie in the past.
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.DeliveryMs)*time.Millisecond)
	defer cancel()
	var sent []*kgo.Record
	for _, r := range c.Records {
		k := &kgo.Record{Topic: c.Topic, Partition: r.P, Key: r.K, Value: r.V}
		if r.Ts != nil {
			k.Timestamp = time.UnixMilli(*r.Ts)
		}
		for _, h := range r.H {
			k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
		}
		sent = append(sent, k)
	}
	if err := p.ProduceSync(ctx, sent...).FirstErr(); err != nil {
		return nil, err
	}
	offsets := make([]int64, len(sent))
	for i, r := range sent {
		offsets[i] = r.Offset
		if c.Acks != nil && *c.Acks == 0 {
			offsets[i] = -1
		}
	}
	return map[string]any{"offsets": offsets}, nil
}

func (d *driver) consume(ctx context.Context, c *Command) (map[string]any, error) {
	name := fmt.Sprint(c.Topic, "/", c.P)
	start := c.Value
	switch c.At {
	case "continue":
		start = d.position[name]
	case "earliest", "latest":
		ends, err := d.offsets(ctx, c)
		if err != nil {
			return nil, err
		}
		start = ends[c.At].(int64)
	case "timestamp":
		got, err := d.time(ctx, c, c.Value)
		if err != nil {
			return nil, err
		}
		start = got
	}
	d.position[name] = start
	records := []Record{}
	if c.Count > 0 {
		client, err := d.base(kgo.FetchMaxWait(100*time.Millisecond), kgo.FetchMaxPartitionBytes(4<<20), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
			c.Topic: {c.P: kgo.NewOffset().At(start)}}))
		if err != nil {
			return nil, err
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(ctx, time.Duration(c.TimeoutMs)*time.Millisecond)
		defer cancel()
		for len(records) < c.Count && ctx.Err() == nil {
			fetches := client.PollRecords(ctx, c.Count-len(records))
			for _, e := range fetches.Errors() {
				var known *kerr.Error
				if errors.As(e.Err, &known) {
					return nil, e.Err
				}
			}
			for _, r := range fetches.Records() {
				ts := r.Timestamp.UnixMilli()
				out := Record{P: r.Partition, O: r.Offset, Ts: &ts, K: r.Key, V: r.Value, H: []Header{}}
				for _, h := range r.Headers {
					out.H = append(out.H, Header{h.Key, h.Value})
				}
				records = append(records, out)
				d.position[name] = r.Offset + 1
			}
		}
	}
	return map[string]any{"records": records, "position": d.position[name]}, nil
}

func one(got kadm.ListedOffsets, c *Command) (int64, error) {
	o, ok := got.Lookup(c.Topic, c.P)
	if !ok {
		return 0, fmt.Errorf("no answer for %s-%d", c.Topic, c.P)
	}
	return o.Offset, o.Err
}

func (d *driver) offsets(ctx context.Context, c *Command) (map[string]any, error) {
	a, err := d.admin()
	if err != nil {
		return nil, err
	}
	starts, err := a.ListStartOffsets(ctx, c.Topic)
	if err != nil {
		return nil, err
	}
	ends, err := a.ListEndOffsets(ctx, c.Topic)
	if err != nil {
		return nil, err
	}
	low, err := one(starts, c)
	if err != nil {
		return nil, err
	}
	high, err := one(ends, c)
	return map[string]any{"earliest": low, "latest": high}, err
}

// time is the offset of the first record not older than ts. kadm answers the end where there is none: then -1.
func (d *driver) time(ctx context.Context, c *Command, ts int64) (int64, error) {
	a, err := d.admin()
	if err != nil {
		return 0, err
	}
	got, err := a.ListOffsetsAfterMilli(ctx, ts, c.Topic)
	if err != nil {
		return 0, err
	}
	if o, ok := got.Lookup(c.Topic, c.P); ok && o.Err == nil && o.Timestamp < 0 {
		return -1, nil
	}
	return one(got, c)
}

func (d *driver) manage(ctx context.Context, c *Command) (map[string]any, error) {
	a, err := d.admin()
	if err != nil {
		return nil, err
	}
	switch c.Op {
	case "create":
		configs := map[string]*string{}
		for k, v := range c.Configs {
			configs[k] = kadm.StringPtr(v)
		}
		got, err := a.CreateTopic(ctx, c.Partitions, -1, configs, c.Topic)
		if err == nil {
			err = got.Err
		}
		return map[string]any{}, err
	case "delete":
		got, err := a.DeleteTopics(ctx, c.Topic)
		if err == nil {
			err = got[c.Topic].Err
		}
		return map[string]any{}, err
	case "configs":
		got, err := a.DescribeTopicConfigs(ctx, c.Topic)
		if err != nil {
			return nil, err
		}
		out := map[string]any{}
		for _, x := range got[0].Configs {
			out[x.Key] = x.Value
		}
		return map[string]any{"configs": out}, got[0].Err
	}
	got, err := a.Metadata(ctx, c.Topic)
	if err != nil {
		return nil, err
	}
	brokers := [][]any{}
	for _, b := range got.Brokers {
		brokers = append(brokers, []any{b.NodeID, b.Host, b.Port})
	}
	return map[string]any{"brokers": brokers, "partitions": len(got.Topics[c.Topic].Partitions)}, got.Topics[c.Topic].Err
}

func (d *driver) answer(c *Command) map[string]any {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var out map[string]any
	var err error
	switch c.Op {
	case "hello":
		out = map[string]any{"client": "franz-go", "version": version()}
	case "produce":
		out, err = d.produce(ctx, c)
	case "consume":
		out, err = d.consume(ctx, c)
	case "offsets":
		out, err = d.offsets(ctx, c)
	case "time":
		var offset int64
		offset, err = d.time(ctx, c, c.Ts)
		out = map[string]any{"offset": offset}
	case "join":
		out, err = d.join(c)
	case "take":
		out, err = d.take(ctx, c)
	case "commit":
		out, err = d.commit(ctx, c)
	case "leave":
		out, err = d.leave(c)
	default:
		out, err = d.manage(ctx, c)
	}
	if err != nil {
		code := -1
		var known *kerr.Error
		if errors.As(err, &known) {
			code = int(known.Code)
		}
		return map[string]any{"ok": false, "code": code, "error": err.Error()}
	}
	out["ok"] = true
	return out
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/twmb/franz-go" {
				return m.Version
			}
		}
	}
	return "?"
}

func main() {
	d := &driver{bootstrap: os.Args[1], producers: map[string]*kgo.Client{}, position: map[string]int64{}, members: map[string]*member{}}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var c Command
		if err := json.Unmarshal(line, &c); err != nil {
			_ = out.Encode(map[string]any{"ok": false, "code": -1, "error": err.Error()})
			continue
		}
		_ = out.Encode(d.answer(&c))
	}
}
