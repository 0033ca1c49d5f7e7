//! The three loads of the comparison and what one run of a load yields. Never talks to a socket (see `generator`).

use crate::procfs::Usage;
use crate::server::Server;
use crate::{Outcome, batch};
use hdrhistogram::Histogram;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A load: batches produced with acks=all, beside consumers if there are any. Closed loop: every connection keeps `depth`
/// requests in flight. Open loop: requests are due at fixed times, whatever the broker does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    pub name: &'static str,
    pub conns: usize,
    pub depth: usize,
    pub partitions: i32,
    /// Records in a batch.
    pub records: usize,
    /// Bytes of one record's value.
    pub value_bytes: usize,
    /// Requests per second over all connections; 0 = closed loop.
    pub rate: f64,
    /// Consumers that follow every partition's tail.
    pub tails: usize,
}

/// One connection, one record of 100 B at a time: the latency load.
pub const SYNC: Case = Case {
    name: "sync",
    conns: 1,
    depth: 1,
    partitions: 1,
    records: 1,
    value_bytes: 100,
    rate: 0.0,
    tails: 0,
};
/// 64 connections x 5 in flight, one record of 100 B per batch, 100 partitions: the load of many small requests.
pub const TINY: Case = Case { name: "tiny", conns: 64, depth: 5, partitions: 100, ..SYNC };
/// 4 connections x 2 in flight, batches just under 1 MB, 4 partitions: the bandwidth load.
pub const BULK: Case =
    Case { name: "bulk", conns: 4, depth: 2, partitions: 4, records: 976, value_bytes: 1014, ..SYNC };
/// 10 records of 1 KB per request, 16 partitions, at a given rate with one consumer: the end-to-end load.
pub const PACED: Case = Case {
    name: "paced",
    conns: 16,
    depth: 0,
    partitions: 16,
    records: 10,
    value_bytes: 1014,
    rate: 1000.0,
    tails: 1,
};

/// All loads.
pub const CASES: &[Case] = &[SYNC, TINY, BULK];

/// The load named `name`.
pub fn case(name: &str) -> Outcome<Case> {
    let found = CASES.iter().chain([&PACED]).find(|case| case.name == name);
    found.copied().ok_or_else(|| format!("--case {name}: there are sync, tiny, bulk and paced"))
}

impl Case {
    /// The batch that every request of this load carries: incompressible values, time of now.
    pub fn batch(&self) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let values: Vec<Vec<u8>> = (0..self.records)
            .map(|_| {
                let mut value = Vec::with_capacity(self.value_bytes + 8);
                while value.len() < self.value_bytes {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    value.extend_from_slice(&state.to_le_bytes());
                }
                value.truncate(self.value_bytes);
                value
            })
            .collect();
        batch::build(values.iter().map(Vec::as_slice), now_ms())
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// How long and against whom a load runs.
#[derive(Clone, Debug)]
pub struct Plan {
    pub bootstrap: String,
    pub warmup: Duration,
    pub measure: Duration,
    /// Processes whose CPU is charged; none: only latency and throughput are measured.
    pub broker_pids: Vec<u32>,
    /// Core of the generator.
    pub core: usize,
    /// Topic to make; none: a fresh name.
    pub topic: Option<String>,
    /// Replication factor of the topic.
    pub replicas: i16,
    /// Configs of the topic.
    pub configs: Vec<(String, String)>,
    /// A reader that catches up beside the load; none: nobody does.
    pub catch_up: Option<CatchUp>,
}

impl Plan {
    /// Against a server on core 0, from the next core, into a fresh topic with these configs.
    pub fn against(server: &Server, warmup: Duration, measure: Duration, configs: &[(&str, &str)]) -> Plan {
        Plan {
            bootstrap: server.bootstrap.clone(),
            warmup,
            measure,
            broker_pids: vec![server.pid()],
            core: 1.min(crate::sys::cores().max(2) - 1),
            topic: None,
            replicas: 1,
            configs: configs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            catch_up: None,
        }
    }
}

/// A topic to be read from offset 0 to its ends.
#[derive(Clone, Debug)]
pub struct CatchUp {
    pub topic: String,
    /// The offset behind the last record, per partition.
    pub ends: Vec<i64>,
}

/// Latencies of one window, nanoseconds.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From the intended send (closed loop: the send) to the answer.
    pub produce: Histogram<u64>,
    /// From the send to the answer.
    pub service: Histogram<u64>,
    /// From the intended send to the batch's arrival at a consumer.
    pub end_to_end: Histogram<u64>,
}

impl Latencies {
    /// Empty ones, up to two minutes with three digits.
    pub fn new() -> Outcome<Latencies> {
        let empty = || Histogram::new_with_bounds(1, 120_000_000_000, 3).map_err(|error| error.to_string());
        Ok(Latencies { produce: empty()?, service: empty()?, end_to_end: empty()? })
    }

    /// Adds another window's.
    pub fn merge(&mut self, other: &Latencies) -> Outcome<()> {
        let pairs = [
            (&mut self.produce, &other.produce),
            (&mut self.service, &other.service),
            (&mut self.end_to_end, &other.end_to_end),
        ];
        pairs.into_iter().try_for_each(|(to, from)| to.add(from)).map_err(|error| error.to_string())
    }
}

/// A quantile, microseconds; none when fewer than ten samples lie beyond it: then it says nothing.
pub fn quantile_us(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    let beyond = histogram.len() as f64 * (1.0 - quantile);
    (beyond >= 10.0).then(|| histogram.value_at_quantile(quantile) as f64 / 1000.0)
}

/// What one run measured. Latencies are in microseconds, from the request's write to its answer's read.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub case: String,
    pub seconds: f64,
    pub requests: u64,
    /// All answers including warm-up, each checked against the ledger.
    pub verified: u64,
    pub requests_per_s: f64,
    /// Batch bytes, 10^6 per second.
    pub mb_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    /// Broker CPU per request; 0 without a pid.
    pub cpu_us_per_request: f64,
    /// Broker CPU seconds per 10^9 bytes of batches.
    pub cpu_s_per_gb: f64,
    pub switches_per_request: f64,
    pub rss_mb: f64,
    pub rss_max_mb: f64,
    /// Bytes the broker had written to the device per byte of batches.
    pub disk_per_byte: f64,
    /// Bytes consumers got, 10^6 per second.
    pub consumed_mb_per_s: f64,
    /// Broker CPU seconds per 10^9 bytes produced and consumed.
    pub cpu_s_per_gb_moved: f64,
    /// What the reader that catches up got until it was done or the window ended, 10^6 bytes per second.
    pub catch_up_mb_per_s: f64,
    /// 99th percentile of the worst connection over that of the median one; NaN with too few samples.
    pub unfairness: f64,
    /// The same of the worst latencies.
    pub worst_unfairness: f64,
    /// Requests answered in the last third of the window over those of the first.
    pub end_over_beginning: f64,
    /// Share of its core that the generator used: near 1 it is the limit, not the broker.
    pub generator_busy: f64,
    /// The offset behind the last record, per partition.
    pub ends: Vec<i64>,
    pub topic: String,
    pub latencies: Option<Latencies>,
}

impl Measured {
    /// Puts the figures of one window together.
    pub fn new(
        case: &Case,
        elapsed: Duration,
        latency_ns: &Histogram<u64>,
        verified: u64,
        batch_bytes: usize,
    ) -> Measured {
        let requests = latency_ns.len();
        let seconds = elapsed.as_secs_f64();
        let at = |quantile: f64| latency_ns.value_at_quantile(quantile) as f64 / 1000.0;
        Measured {
            case: case.name.to_string(),
            seconds,
            requests,
            verified,
            requests_per_s: requests as f64 / seconds,
            mb_per_s: requests as f64 * batch_bytes as f64 / 1e6 / seconds,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: latency_ns.max() as f64 / 1000.0,
            ..Measured::default()
        }
    }

    /// Adds what the broker spent between two readings.
    pub fn charge(&mut self, before: &Usage, after: &Usage, batch_bytes: usize) {
        let requests = self.requests.max(1) as f64;
        let cpu_us = after.cpu_us.saturating_sub(before.cpu_us) as f64;
        self.cpu_us_per_request = cpu_us / requests;
        self.cpu_s_per_gb = cpu_us / 1e6 / (requests * batch_bytes as f64 / 1e9);
        self.switches_per_request = after.switches.saturating_sub(before.switches) as f64 / requests;
        let written = after.written_bytes.saturating_sub(before.written_bytes) as f64;
        self.disk_per_byte = written / (requests * batch_bytes as f64);
        let moved = (self.mb_per_s + self.consumed_mb_per_s) * self.seconds / 1e3;
        self.cpu_s_per_gb_moved = cpu_us / 1e6 / moved;
        self.rss_mb = after.rss_bytes as f64 / 1e6;
        self.rss_max_mb = after.rss_max_bytes as f64 / 1e6;
    }

    /// One JSON object.
    pub fn json(&self) -> String {
        format!(
            "{{\"case\":\"{}\",\"seconds\":{:.3},\"requests\":{},\"verified\":{},\"requests_per_s\":{:.1},\"mb_per_s\":{:.2},\
             \"p50_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1},\"max_us\":{:.1},\"cpu_us_per_request\":{:.3},\
             \"cpu_s_per_gb\":{:.4},\"switches_per_request\":{:.4},\"rss_mb\":{:.1},\"rss_max_mb\":{:.1},\"disk_per_byte\":{:.3},\"consumed_mb_per_s\":{:.2},\
             \"cpu_s_per_gb_moved\":{:.4},\"catch_up_mb_per_s\":{:.1},\"unfairness\":{:.2},\"worst_unfairness\":{:.2},\"end_over_beginning\":{:.3},\"generator_busy\":{:.3},\"service_p99_us\":{:.1},\
             \"e2e_p50_us\":{:.1},\"e2e_p99_us\":{:.1},\"e2e_p9999_us\":{:.1}}}",
            self.case,
            self.seconds,
            self.requests,
            self.verified,
            self.requests_per_s,
            self.mb_per_s,
            self.p50_us,
            self.p99_us,
            self.p999_us,
            self.max_us,
            self.cpu_us_per_request,
            self.cpu_s_per_gb,
            self.switches_per_request,
            self.rss_mb,
            self.rss_max_mb,
            self.disk_per_byte,
            self.consumed_mb_per_s,
            self.cpu_s_per_gb_moved,
            self.catch_up_mb_per_s,
            self.unfairness,
            self.worst_unfairness,
            self.end_over_beginning,
            self.generator_busy,
            self.at(|l| &l.service, 0.99),
            self.at(|l| &l.end_to_end, 0.5),
            self.at(|l| &l.end_to_end, 0.99),
            self.at(|l| &l.end_to_end, 0.9999)
        )
    }

    /// A quantile of one of the histograms, microseconds; NaN with too few samples.
    pub fn at(&self, which: impl Fn(&Latencies) -> &Histogram<u64>, quantile: f64) -> f64 {
        let found = self.latencies.as_ref().and_then(|latencies| quantile_us(which(latencies), quantile));
        found.unwrap_or(f64::NAN)
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        format!(
            "{}: {:.0} requests/s, {:.1} MB/s, p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us; broker {:.2} us CPU/request, \
             {:.3} CPU-s/GB, {:.2} switches/request, RSS {:.0} MB; consumed {:.0} MB/s, \
             caught up {:.0} MB/s, generator busy {:.2}; {} answers verified",
            self.case,
            self.requests_per_s,
            self.mb_per_s,
            self.p50_us,
            self.p99_us,
            self.p999_us,
            self.cpu_us_per_request,
            self.cpu_s_per_gb,
            self.switches_per_request,
            self.rss_mb,
            self.consumed_mb_per_s,
            self.catch_up_mb_per_s,
            self.generator_busy,
            self.verified
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_valid_and_of_the_size_named() {
        for case in CASES {
            let bytes = case.batch();
            let batch = batch::take(&mut &bytes[..]).unwrap().unwrap();
            assert_eq!(batch.count as usize, case.records);
            assert!(batch.values().unwrap().iter().all(|value| value.len() == case.value_bytes));
        }
        let bulk = BULK.batch().len();
        assert!((990_000..=1_000_000).contains(&bulk), "bulk batch has {bulk} bytes");
    }
}
