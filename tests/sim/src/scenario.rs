//! What happens in a run: topics, clients, ends of all kinds, and at last the judgement.

use bytes::Bytes;
use pelton_log::Sabotage as LogSabotage;
use pelton_shard::Sabotage;
use pelton_wire::messages as m;

use crate::client::{self, COMPACTED, Role};
use crate::disk::{Crash, Faults};
use crate::oracle::Whole;
use crate::party::Party;
use crate::world::{Summary, World};

/// Steps within which all clients come to an end once there are no more faults; the longest of the first 60 seeds took 736,000.
const FINISH_STEPS_MAX: u64 = 3_000_000;

/// Runs one seed.
pub fn run(seed: u64, trace: bool, sabotage: Option<Sabotage>) -> Result<Summary, String> {
    let mut world = World::new(seed, trace, sabotage);
    world.start()?;
    create(&mut world)?;
    world.create_groups()?;
    let rounds = 2 + world.prng.below(4);
    for _ in 0..rounds {
        world.connect_clients();
        world.disk.faults = faults(&mut world);
        let duration_ms = 5 + world.prng.below(400);
        world.run_for(duration_ms)?;
        end(&mut world)?;
        world.disk.faults = Faults::default();
        start_again(&mut world, sabotage)?;
    }
    world.wait_for_expiry()?;
    finish(&mut world)?;
    judge(&mut world)?;
    world.judge_groups()?;
    damage(&mut world, sabotage)?;
    world.summary.acknowledged = world.judges.records.acknowledged;
    world.summary.read = world.judges.records.read;
    world.summary.dropped = world.judges.records.dropped;
    world.summary.assignments = world.judges.groups.assignments;
    world.summary.commits = world.judges.groups.commits;
    world.summary.compacted = world.judges.records.compacted;
    Ok(world.summary)
}

/// Topics and clients. Partitions are placed on shards in turn, so a client of one shard uses every other partition.
fn create(world: &mut World) -> Result<(), String> {
    let shards = i32::from(world.config().shards);
    let partitions = shards * (1 + world.prng.below(2) as i32);
    world.create_topic("sync", partitions, &[("segment.bytes", "1048576")])?;
    let flush = ["100", "9223372036854775807"][world.prng.below(2) as usize];
    world.create_topic("async", partitions, &[("flush.messages", flush), ("flush.ms", "200")])?;
    world.judges.records.lossy_topics.push("async".to_string());
    create_expiring(world, partitions)?;
    create_compacted(world, partitions)?;
    for topic in ["sync", "async", "expiring", COMPACTED] {
        for shard in 0..shards {
            let mine: Vec<i32> = (0..partitions).filter(|partition| partition % shards == shard).collect();
            let goal = 20 + world.prng.below(150);
            // A lossy topic and a producer that goes on where it was do not go together after a power cut.
            let role = if topic != "async" && !world.judges.records.is_lossy(topic) {
                Role::Idempotent
            } else {
                Role::Plain
            };
            if role == Role::Idempotent {
                world.judges.records.idempotent.push(world.clients.len() as u32);
            }
            world.add_client(role, topic, mine.clone(), goal, -1);
            let acks = [-1, 1, 0][world.prng.below(3) as usize];
            world.add_client(Role::Plain, topic, mine.clone(), goal / 2, acks);
            world.add_client(Role::Reader, topic, mine, goal / 2, -1);
        }
    }
    Ok(())
}

/// A topic of small segments whose records go after a short time, or when there are too many.
fn create_expiring(world: &mut World, partitions: i32) -> Result<(), String> {
    let pick = |world: &mut World, choices: [&'static str; 3]| choices[world.prng.below(3) as usize];
    let retention_ms = pick(world, ["20", "200", "5000"]);
    let retention_bytes = pick(world, ["-1", "-1", "30000"]);
    let lossy = world.prng.one_in(3);
    let configs = [
        ("segment.ms", pick(world, ["5", "20", "100"])),
        ("retention.ms", retention_ms),
        ("retention.bytes", retention_bytes),
        ("file.delete.delay.ms", pick(world, ["0", "20", "1000"])),
        ("flush.messages", if lossy { "100" } else { "1" }),
        ("flush.ms", "200"),
    ];
    world.create_topic("expiring", partitions, &configs)?;
    let age_ms = if retention_bytes == "-1" { retention_ms.parse().unwrap_or(0) } else { -1 };
    world.judges.records.retained.insert("expiring".to_string(), age_ms);
    if lossy {
        world.judges.records.lossy_topics.push("expiring".to_string());
    }
    Ok(())
}

/// A topic of small segments that is compacted often, and in some runs also expires.
fn create_compacted(world: &mut World, partitions: i32) -> Result<(), String> {
    let pick = |world: &mut World, choices: [&'static str; 3]| choices[world.prng.below(3) as usize];
    let tombstone_ms = pick(world, ["0", "40", "100000"]);
    let expires = world.prng.one_in(4);
    let configs = [
        ("cleanup.policy", if expires { "compact,delete" } else { "compact" }),
        ("retention.ms", "300"),
        ("segment.ms", pick(world, ["5", "20", "100"])),
        ("delete.retention.ms", tombstone_ms),
        ("min.cleanable.dirty.ratio", pick(world, ["0", "0.3", "0.8"])),
        ("min.compaction.lag.ms", pick(world, ["0", "0", "20"])),
        ("max.compaction.lag.ms", pick(world, ["9223372036854775807", "50", "200"])),
        ("file.delete.delay.ms", pick(world, ["0", "20", "1000"])),
    ];
    world.create_topic(COMPACTED, partitions, &configs)?;
    world.judges.records.tombstone_ms = tombstone_ms.parse().unwrap_or(0);
    if expires {
        world.judges.records.retained.insert(COMPACTED.to_string(), 300);
    }
    Ok(())
}

fn faults(world: &mut World) -> Faults {
    Faults {
        no_space: world.prng.one_in(8),
        journal_error_one_in: if world.prng.one_in(10) { 20 + world.prng.below(200) } else { 0 },
    }
}

fn end(world: &mut World) -> Result<(), String> {
    match world.prng.below(5) {
        0 => {
            let healthy = world.disk.faults.journal_error_one_in == 0 && !world.disk.faults.no_space;
            if healthy { world.stop() } else { crash(world, Crash::Kill) }
        }
        1 | 2 => crash(world, Crash::Kill),
        _ => crash(world, Crash::PowerCut),
    }
}

fn crash(world: &mut World, kind: Crash) -> Result<(), String> {
    world.crash(kind);
    Ok(())
}

/// Starts; sometimes ends again before recovery is through, which must not matter.
fn start_again(world: &mut World, sabotage: Option<Sabotage>) -> Result<(), String> {
    let _ = sabotage;
    while world.prng.one_in(4) {
        world.start()?;
        let steps = world.prng.below(30);
        let _ = world.run_until(|_| false, steps);
        let kind = if world.prng.one_in(2) { Crash::Kill } else { Crash::PowerCut };
        world.crash(kind);
    }
    world.start()
}

/// No more faults: everything that was begun comes to an end. Clients that go round for ever, as a producer does whose record
/// is gone, are found by the number of steps.
fn finish(world: &mut World) -> Result<(), String> {
    let steps_max = world.steps + FINISH_STEPS_MAX;
    for _ in 0..1_200 {
        world.connect_clients();
        world.run_for(1_000)?;
        if world.clients.iter().all(Party::is_done) {
            return Ok(());
        }
        if world.steps > steps_max {
            break;
        }
    }
    let open: Vec<String> =
        world.clients.iter().filter(|client| !client.is_done()).map(Party::name).collect();
    Err(format!("clients {open:?} do not come to an end"))
}

/// Reads every partition whole and holds it against what is known.
fn judge(world: &mut World) -> Result<(), String> {
    let mut all: Vec<(String, i32)> = Vec::new();
    for client in &world.clients {
        let Party::Client(client) = client else { continue };
        for partition in &client.partitions {
            if !all.contains(&(client.topic.clone(), *partition)) {
                all.push((client.topic.clone(), *partition));
            }
        }
    }
    for (topic, partition) in &all {
        if topic == COMPACTED {
            settle_compaction(world, *partition)?;
        }
        let start = world.earliest(topic, *partition)?;
        let range = read_whole(world, topic, *partition, start)?;
        let now_ms = world.now().wall_ms;
        match topic.as_str() {
            COMPACTED => world.judges.records.judge_compacted(*partition, range.0, now_ms)?,
            _ => world.judges.records.judge(topic, *partition, range, now_ms)?,
        }
    }
    judge_expiry(world, &all)
}

/// Compaction comes to an end when nothing is appended any more. Until then a reader slower than `delete.retention.ms`, which
/// may be 0 here, can be shown a record and no longer the later one that deleted it.
fn settle_compaction(world: &mut World, partition: i32) -> Result<(), String> {
    let mut before = None;
    for _ in 0..100 {
        world.pass(1_500)?;
        let start = world.earliest(COMPACTED, partition)?;
        let range = read_whole(world, COMPACTED, partition, start)?;
        let found = Some((range, std::mem::take(&mut world.judges.records.whole.offsets)));
        if found == before {
            return Ok(());
        }
        before = found;
    }
    Err(format!("{COMPACTED}-{partition}: compaction does not come to an end"))
}

/// With time, a topic whose records expire is empty.
fn judge_expiry(world: &mut World, all: &[(String, i32)]) -> Result<(), String> {
    let ages: Vec<i64> = world.judges.records.retained.values().copied().collect();
    if ages.iter().any(|age_ms| *age_ms < 0) {
        return Ok(());
    }
    let interval_ms = world.config().retention_check_interval_ms;
    world.pass((ages.iter().sum::<i64>() + 3 * interval_ms + 200) as u64)?;
    for (topic, partition) in all {
        if !world.judges.records.retained.contains_key(topic) {
            continue;
        }
        let start = world.earliest(topic, *partition)?;
        let (found, end) = read_whole(world, topic, *partition, start)?;
        if found != end {
            return Err(format!("{topic}-{partition} still has {found} to {end} though all has expired"));
        }
    }
    Ok(())
}

/// Reads a partition from `start` to its end; where it began, as retention may go on meanwhile, and ended.
fn read_whole(world: &mut World, topic: &str, partition: i32, start: i64) -> Result<(i64, i64), String> {
    let (mut start, mut offset, mut turns) = (start, start, 0);
    world.judges.records.whole = Whole::default();
    loop {
        let mut body = client::fetch_body(topic, partition, offset, &mut world.prng);
        body.max_wait_ms = 0;
        let answer: m::FetchResponseData = world.fetch_at_leader(partition, 11, &body)?;
        let data = answer.responses.first().and_then(|topic| topic.partitions.first());
        let data = data.ok_or("a fetch answer without its partition")?;
        if data.error_code == 1 && world.judges.records.retained.contains_key(topic) {
            start = world.earliest(topic, partition)?;
            offset = start;
            world.judges.records.whole = Whole::default();
            continue;
        }
        if data.error_code != 0 {
            return Err(format!("{topic}-{partition}: fetch error {} at {offset}", data.error_code));
        }
        start = start.max(data.log_start_offset);
        let records = data.records.clone().unwrap_or_else(Bytes::new);
        let next = world.judges.records.read(topic, partition, offset, data.high_watermark, &records)?;
        if next == data.high_watermark {
            return Ok((start, next));
        }
        if next == offset {
            return Err(format!(
                "{topic}-{partition}: nothing to read at {offset} of {}",
                data.high_watermark
            ));
        }
        offset = next;
        turns += 1;
        if turns > 100_000 {
            return Err(format!("{topic}-{partition}: no end in sight"));
        }
    }
}

/// Damage of what was flushed must be noticed at the next start, or do no harm; it must never be cut away silently. Only
/// the very last group may go, as a torn tail would: nothing behind it says that it was flushed.
fn damage(world: &mut World, sabotage: Option<Sabotage>) -> Result<(), String> {
    let of_damage =
        matches!(sabotage, Some(Sabotage::Log(LogSabotage::SkipFrameCrc | LogSabotage::SkipTornCheck)));
    if !of_damage && (sabotage.is_some() || !world.prng.one_in(3)) {
        return Ok(());
    }
    // A last commit to each shard, so that a group that nothing follows holds no client's records.
    world.create_topic("last", i32::from(world.config().shards), &[])?;
    let shards = world.config().shards;
    for shard in 0..shards {
        world.touch_shard(shard)?;
    }
    world.crash(Crash::Kill);
    let journal_bytes = world.config().journal_bytes;
    let shard = world.prng.below(u64::from(shards)) as u16;
    let recent = world.disk.recent_journal_writes(shard);
    // Mostly where something is that the start will read.
    let (from, length) = match recent.len() as u64 {
        0 => (0, journal_bytes as usize),
        _ if world.prng.one_in(4) => (0, journal_bytes as usize),
        count => recent[world.prng.below(count) as usize],
    };
    let at = from + world.prng.below(length as u64) as usize;
    world.disk.flip_journal_bit(shard, at);
    match world.start() {
        Err(_) => Ok(()),
        Ok(()) => world
            .judge_touched()
            .and_then(|()| judge(world))
            .map_err(|error| format!("after damage at {at} of shard {shard}: {error}")),
    }
}
