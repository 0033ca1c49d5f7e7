//! What grows with nodes and partitions, and what must not: a heartbeat, a node's death, one change, a new topic, the image,
//! its snapshot. Quorum, controller and image are the real ones. Counts and bytes are the same in every run; times are not.

mod cluster;
#[path = "../../../shards/wire/tests/common/counting.rs"]
mod counting;
mod scene;

use std::time::{Duration, Instant};

use bytes::Bytes;
use pelton_cluster::control::asks::{Answer, Ask};
use pelton_cluster::control::isr::{Asker, IsrChange};
use pelton_cluster::controller::TopicWish;
use pelton_cluster::image::MetadataImage;
use pelton_model::NodeId;
use pelton_model::limits::PARTITIONS_MAX;

use self::cluster::{Cluster, Count};
use self::scene::Size;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Intervals of heartbeats that are counted.
const INTERVALS: u64 = 10;
/// Partitions of the new topic.
const NEW_PARTITIONS: i32 = 1_000;

/// What one size comes to.
struct Row {
    size: Size,
    image_bytes: usize,
    index_bytes: usize,
    snapshot_bytes: usize,
    snapshot: Duration,
    load: Duration,
    index: Duration,
    /// Of [`INTERVALS`], and allocations in the whole cluster.
    beats: Count,
    allocations: u64,
    /// The quickest of them.
    beat: Duration,
    /// One partition changes.
    update: Count,
    topic: Count,
    death: Count,
    /// Intervals until everything that follows from the death is done.
    death_intervals: u64,
    /// Partitions the dead node had a replica of.
    lost: usize,
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed())
}

fn kept<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = counting::allocated();
    let result = work();
    (result, usize::try_from(counting::allocated() - before).unwrap_or(0))
}

impl Row {
    fn of(size: Size) -> Result<Row, String> {
        let built = scene::image(size);
        let applied = built.applied_offset();
        let (snapshot, snapshot_time) = timed(|| built.snapshot());
        let snapshot_bytes = snapshot.len();
        drop(built);
        let ((image, image_bytes), load) = timed(|| kept(|| MetadataImage::from_snapshot(&snapshot)));
        let image = image.map_err(|error| error.to_string())?;
        let ((indexed, index_bytes), index) = timed(|| kept(|| image.indexed()));
        drop(indexed);

        let mut cluster = Cluster::new(size, Bytes::from(snapshot), applied);
        let (start, calls) = (cluster.count(), counting::calls());
        let mut beat = Duration::MAX;
        for _ in 0..INTERVALS {
            let before = cluster.count();
            cluster.interval();
            beat = beat.min(cluster.count().since(&before).cpu);
        }
        let (beats, allocations) = (cluster.count().since(&start), counting::calls() - calls);

        let update = change_one(&mut cluster)?;
        let topic = create_topic(&mut cluster)?;
        let dead = size.nodes as i32 - 1;
        let lost = cluster.member.image().partitions_on(NodeId(dead), None).count();
        let (death, death_intervals) = kill(&mut cluster, dead)?;
        Ok(Row {
            size,
            image_bytes,
            index_bytes,
            snapshot_bytes,
            snapshot: snapshot_time,
            load,
            index,
            beats,
            allocations,
            beat,
            update,
            topic,
            death,
            death_intervals,
            lost,
        })
    }

    fn print(&self) {
        let Size { nodes, partitions, per_topic } = self.size;
        let each = |value: f64, of: f64| value / of.max(1.0);
        let (n, p) = (nodes as f64, partitions as f64);
        let beats = INTERVALS as f64 * (n - 1.0);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let rest = self.death.cpu.saturating_sub(self.beat * self.death_intervals as u32);
        println!("{nodes} nodes, {partitions} partitions, {per_topic} to a topic");
        println!(
            "  heartbeat: {:.0} B of leases and {:.0} B of the quorum a node, {:.2} us, {:.1} allocations, {} partitions looked at",
            each(self.beats.leases.bytes as f64, beats),
            each(self.beats.beats.bytes as f64, beats),
            each(self.beat.as_secs_f64() * 1e6, n - 1.0),
            each(self.allocations as f64, beats),
            self.beats.visits,
        );
        println!(
            "  a node's death: {} partitions, {} looked at, {} entries, {} KiB, {} frames, {} KiB sent, {:.1} ms",
            self.lost,
            self.death.visits,
            self.death.entries,
            self.death.entry_bytes / 1024,
            self.death.log.number,
            self.death.log.bytes / 1024,
            ms(rest),
        );
        println!(
            "  one change: {} B in the log, {} frames, {} B sent, {:.2} ms; a topic of {NEW_PARTITIONS}: {} looked at, {:.1} ms",
            self.update.entry_bytes,
            self.update.log.number,
            self.update.log.bytes,
            ms(self.update.cpu),
            self.topic.visits,
            ms(self.topic.cpu),
        );
        println!(
            "  image: {:.0} B a partition, index {:.0} B; snapshot {:.0} B a partition, written in {:.1} ms, read in {:.1} ms, indexed in {:.1} ms",
            each(self.image_bytes as f64, p),
            each(self.index_bytes as f64, p),
            each(self.snapshot_bytes as f64, p),
            ms(self.snapshot),
            ms(self.load),
            ms(self.index),
        );
    }
}

/// A partition's leader asks for the ISR there is: one entry.
fn change_one(cluster: &mut Cluster) -> Result<Count, String> {
    let image = cluster.member.image();
    let found =
        image.partitions().find(|(_, partition)| partition.leader.is_some_and(|leader| leader.node.0 > 2));
    let (key, partition) = found.ok_or("no partition is led by another node")?;
    let state = partition.state();
    let node = state.leader.map_or(NodeId(0), |leader| leader.node);
    let asker = Asker { node, epoch: scene::epoch(node.0 as usize) };
    let (leader_epoch, partition_epoch) = (state.leader_epoch, state.partition_epoch);
    let changes = vec![IsrChange { key, leader_epoch, partition_epoch, isr: state.isr }];
    let before = cluster.count();
    cluster.ask_from(node, Ask::AlterIsr { asker, changes });
    let count = cluster.count().since(&before);
    let now = cluster.member.image().partition(key).map(|partition| partition.partition_epoch);
    match now {
        Some(now) if now.0 == partition_epoch.0 + 1 => Ok(count),
        _ => Err("the partition has not changed".to_string()),
    }
}

fn create_topic(cluster: &mut Cluster) -> Result<Count, String> {
    let wish = TopicWish {
        name: "new".to_string(),
        partitions: NEW_PARTITIONS,
        replication_factor: scene::FACTOR as i16,
        ..TopicWish::default()
    };
    let before = cluster.count();
    match cluster.ask(Ask::CreateTopic(wish)) {
        Answer::Topic(_) => Ok(cluster.count().since(&before)),
        other => Err(format!("no topic: {other:?}")),
    }
}

/// A node falls silent; until it leads nothing and is in no ISR.
fn kill(cluster: &mut Cluster, node: i32) -> Result<(Count, u64), String> {
    cluster.dead.insert(node);
    let before = cluster.count();
    for intervals in 1..200 {
        cluster.interval();
        let image = cluster.member.image();
        let fenced = image.node(NodeId(node)).is_none_or(|node| node.fenced);
        if fenced && cluster.is_idle() {
            let image = cluster.member.image();
            let in_sync = image.partitions_on(NodeId(node), None).any(|(_, partition)| {
                partition.isr.iter().any(|member| member.replica.node.0 == node)
                    || partition.leader.is_none_or(|leader| leader.node.0 == node)
            });
            let left =
                if in_sync { Err("the dead node is still in sync somewhere".to_string()) } else { Ok(()) };
            return left.map(|()| (cluster.count().since(&before), intervals));
        }
    }
    Err("a dead node is not fenced".to_string())
}

/// Prints what sizes up to `large` come to: a million partitions, the most a cluster may have, with the new topic.
pub fn table(large: bool) -> Result<(), String> {
    let most = PARTITIONS_MAX - NEW_PARTITIONS as usize;
    let sizes: &[usize] = if large { &[10_000, 100_000, most] } else { &[10_000, 100_000] };
    for nodes in [10, 100, 1_000] {
        for partitions in sizes {
            Row::of(Size { nodes, partitions: *partitions, per_topic: 1_000 })?.print();
        }
    }
    // Many small topics instead of few large ones.
    Row::of(Size { nodes: 100, partitions: 100_000, per_topic: 1 }).map(|row| row.print())
}

fn must(what: &str, holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_string()) }
}

/// The rules of growth at sizes that are quick to build; nothing here is a time.
pub fn check() -> Result<(), String> {
    let row = |nodes, partitions, per_topic| {
        Row::of(Size { nodes, partitions, per_topic }).inspect(|row| row.print())
    };
    let (few, many) = (row(10, 100, 10)?, row(10, 10_000, 1_000)?);
    let wide = row(100, 10_000, 1_000)?;
    let small = row(10, 10_000, 1)?;
    for row in [&few, &many, &wide, &small] {
        let nodes = row.size.nodes as u64 - 1;
        must("a heartbeat looks at no partition", row.beats.visits == 0)?;
        must(
            "every node asks once an interval and is answered",
            row.beats.leases.number == 2 * nodes * INTERVALS,
        )?;
        must("a quiet cluster writes nothing", row.beats.entries == 0)?;
        must("a death looks at the partitions of the dead, once", row.death.visits == row.lost as u64)?;
        let batches = row.death.entry_bytes / (160 * 1024) + 1;
        must("a death takes a fence, and entries that are full", row.death.entries <= 1 + batches)?;
        must("a change takes 80 bytes at most", row.death.entry_bytes <= 100 + 80 * row.lost as u64)?;
        must("one change is one entry", row.update.entries == 1 && row.update.entry_bytes <= 100)?;
        must("an entry takes four frames a node", row.update.log.number <= 4 * nodes)?;
        must("a change reaches each node with 500 bytes", row.update.log.bytes <= 500 * nodes)?;
        must("a new topic looks at no partition", row.topic.visits == 0)?;
    }
    must("a heartbeat is the same with 100 times the partitions", {
        let same = |row: &Row| (row.beats.leases, row.beats.beats, row.allocations);
        same(&few) == same(&many) && same(&few) == same(&small)
    })?;
    let per = |bytes: usize, row: &Row| bytes / row.size.partitions;
    must("a partition takes 190 bytes", per(many.image_bytes, &many) <= 190)?;
    must("its index takes 80 bytes", per(many.index_bytes, &many) <= 80)?;
    must("its snapshot takes 130 bytes", per(many.snapshot_bytes, &many) <= 130)?;
    must("a topic takes 400 bytes", per(small.image_bytes, &small) <= 600)
}
