//! What one OffsetCommit costs: closed loops of members that commit one partition each, with the broker's processor time.
//! At the end every group must have what it committed last.

use crate::group_client::GroupClient;
use crate::{Outcome, procfs};
use hdrhistogram::Histogram;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Figures of one run.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub p50_us: f64,
    pub p99_us: f64,
    pub commits_per_s: f64,
    /// Processor time of the broker per commit, microseconds.
    pub cpu_us: f64,
}

/// How long, on how many connections, against whom.
#[derive(Clone, Debug)]
pub struct Load {
    pub bootstrap: String,
    pub broker_pid: u32,
    pub topic: String,
    pub connections: usize,
    pub warmup: Duration,
    pub measure: Duration,
}

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

impl Load {
    /// Runs it.
    pub fn run(&self) -> Outcome<Cost> {
        let (phase, ready) = (AtomicU8::new(WARMING), Barrier::new(self.connections + 1));
        std::thread::scope(|scope| {
            let start = |number| {
                let (phase, ready) = (&phase, &ready);
                scope.spawn(move || self.connection(number, phase, ready))
            };
            let threads: Vec<_> = (0..self.connections).map(start).collect();
            ready.wait();
            std::thread::sleep(self.warmup);
            let (before_ns, from) = (procfs::run_ns(self.broker_pid), Instant::now());
            phase.store(MEASURING, Ordering::Release);
            std::thread::sleep(self.measure);
            phase.store(OVER, Ordering::Release);
            let (cpu_ns, wall) = (procfs::run_ns(self.broker_pid).saturating_sub(before_ns), from.elapsed());
            let mut all = histogram();
            for thread in threads {
                let one = thread.join().map_err(|_| "a committing thread panicked".to_string())??;
                all.add(one).map_err(|error| error.to_string())?;
            }
            if all.is_empty() {
                return Err("nothing was committed".into());
            }
            Ok(Cost {
                p50_us: all.value_at_quantile(0.5) as f64 / 1000.0,
                p99_us: all.value_at_quantile(0.99) as f64 / 1000.0,
                commits_per_s: all.len() as f64 / wall.as_secs_f64(),
                cpu_us: cpu_ns as f64 / 1000.0 / all.len() as f64,
            })
        })
    }

    /// One member: joins, waits for the others, commits until it is over, and looks what is committed.
    fn connection(&self, number: usize, phase: &AtomicU8, ready: &Barrier) -> Outcome<Histogram<u64>> {
        let group = format!("bench-commits-{number}-{}", crate::sys::unique());
        let joined =
            GroupClient::connect(&self.bootstrap, &group, Duration::from_secs(60), Duration::from_secs(30))
                .and_then(|mut client| {
                    let mut member_id = String::new();
                    Ok((client.join_alone(&mut member_id, &self.topic, 1)?, member_id, client))
                });
        // Whoever fails must not keep the others waiting.
        ready.wait();
        let (generation, member_id, mut client) = joined?;
        let (mut latency, mut offset) = (histogram(), 0);
        loop {
            let began = phase.load(Ordering::Acquire);
            if began == OVER {
                break;
            }
            offset += 1;
            let from = Instant::now();
            let error = client.commit(generation, &member_id, &self.topic, &[(0, offset)])?;
            if error != 0 {
                return Err(format!("OffsetCommit: error code {error}"));
            }
            if began == MEASURING {
                latency.saturating_record(from.elapsed().as_nanos() as u64);
            }
        }
        match client.offsets(&self.topic, &[0])? {
            (0, found) if found == [(0, offset)] => {}
            found => return Err(format!("{group}: committed {offset}, then OffsetFetch says {found:?}")),
        }
        client.leave(&member_id)?;
        Ok(latency)
    }
}

/// Nanoseconds up to a minute, three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds")
}
