//! The campaign: producers under load, kill after kill, what was acknowledged looked up after each one, everything read
//! again at the end. Counts checks; never decides what is printed about them but the first faults.

use crate::lifecycle::Lifecycle;
use crate::producer::{Entry, Fate, Producer, Shared};
use crate::verify::{Found, Verdict};
use pelton_bench::Outcome;
use pelton_bench::server::{self, Place, Server};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The topic that all producers write to.
pub const TOPIC: &str = "kills";
/// Batches of one producer that may be in flight, generously: so far back a fate can still have changed.
const UNSETTLED: usize = 16;

/// The broker that dies.
#[derive(Clone, Debug)]
pub enum System {
    Pelton(PathBuf, Vec<String>),
    Kafka(PathBuf, Vec<String>),
}

impl System {
    /// Starts it and waits until it serves.
    pub fn start(&self, place: &Place) -> Outcome<Server> {
        server::port_is_free(place.port)?;
        match self {
            System::Pelton(program, extra) => server::pelton(program, place, extra),
            System::Kafka(jars, extra) => server::kafka_with(jars, place, extra),
        }
    }

    /// Starts Pelton and kills it `after`, ready or not: a crash while it recovers.
    fn start_and_kill(&self, place: &Place, after: Duration) -> Outcome<()> {
        if let System::Pelton(program, extra) = self {
            server::port_is_free(place.port)?;
            let started = server::pelton_within(program, place, extra, after);
            if let Err(error) = started
                && !error.starts_with("not ready within")
            {
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Checks made and failed.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
}

impl Tally {
    /// Counts one check; a failed one is printed.
    pub fn count(&mut self, what: &str, fault: Option<String>) {
        match fault {
            None => self.passed += 1,
            Some(fault) => {
                self.failed += 1;
                println!("FAILED {what}: {fault}");
            }
        }
    }
}

/// One run's state besides the broker.
pub struct Campaign<'a> {
    pub system: &'a System,
    pub place: &'a Place,
    pub partitions: i32,
    pub producers: &'a [Producer],
    pub shared: &'a Shared,
    /// Milliseconds from 50 to 500, or as asked, drawn by this.
    pub pause_ms: (u64, u64),
    pub random: u64,
    pub found: Vec<Found>,
    /// Per producer: batches before this number are settled and were judged.
    judged: Vec<usize>,
    pub starts_ms: Vec<f64>,
    /// What else goes on, if asked for.
    pub lifecycle: Option<Lifecycle>,
}

impl<'a> Campaign<'a> {
    /// Nothing read, nothing judged.
    pub fn new(
        system: &'a System,
        place: &'a Place,
        partitions: i32,
        producers: &'a [Producer],
        shared: &'a Shared,
    ) -> Campaign<'a> {
        Campaign {
            system,
            place,
            partitions,
            producers,
            shared,
            pause_ms: (50, 500),
            random: 1,
            found: vec![Found::default(); partitions as usize],
            judged: vec![0; producers.len()],
            starts_ms: Vec::new(),
            lifecycle: None,
        }
    }

    fn pause(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let (low, high) = self.pause_ms;
        Duration::from_millis(low + self.random % (high.max(low) - low + 1))
    }

    /// Kills and restarts `kills` times; one check per kill. An error is a broker that does not come back.
    pub fn run(&mut self, broker: &mut Server, kills: u32, tally: &mut Tally) -> Outcome<()> {
        let mut idle_rounds = 0;
        let mut report = Instant::now();
        for kill in 1..=kills {
            let before = self.shared.acknowledged.load(Ordering::Relaxed);
            std::thread::sleep(self.pause());
            broker.kill();
            let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
            // A broker that acknowledges nothing loses nothing: that would be no test.
            idle_rounds = if acknowledged == before { idle_rounds + 1 } else { 0 };
            if idle_rounds > 5 {
                return Err(format!(
                    "kill {kill}: nothing was acknowledged in the last 5 lives of the broker"
                ));
            }
            let failed = |error| format!("restart after kill {kill}: {error}");
            if kill.is_multiple_of(4) {
                let after = self.pause();
                self.system.start_and_kill(self.place, after).map_err(failed)?;
            }
            *broker = self.system.start(self.place).map_err(failed)?;
            self.starts_ms.push(broker.start_time.as_secs_f64() * 1000.0);
            let other = self.lifecycle.as_mut().and_then(|other| other.check(&broker.bootstrap, kill));
            let fault = self.check(&broker.bootstrap).or(other);
            tally.count(&format!("kill {kill}"), fault);
            if report.elapsed() > Duration::from_secs(10) || kill == kills {
                println!("kill {kill}: {acknowledged} records acknowledged");
                report = Instant::now();
            }
        }
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }

    /// Everything acknowledged until now must be in the log, what is new in the log must be in order: the fault, if any.
    fn check(&mut self, bootstrap: &str) -> Option<String> {
        let ledgers = self.shared.snapshot();
        let mut verdict = Verdict::default();
        for partition in 0..self.partitions {
            let found = &mut self.found[partition as usize];
            if let Err(error) = found.read_on(bootstrap, TOPIC, partition, &mut verdict) {
                return Some(error);
            }
            for (i, ledger) in self.of(partition, &ledgers) {
                self.found[partition as usize].judge(
                    self.producers[i].id,
                    ledger,
                    self.judged[i],
                    &mut verdict,
                );
            }
        }
        self.judged = ledgers.iter().map(|ledger| ledger.len().saturating_sub(UNSETTLED)).collect();
        fault(&verdict)
    }

    fn of<'l>(
        &self,
        partition: i32,
        ledgers: &'l [Vec<Entry>],
    ) -> impl Iterator<Item = (usize, &'l Vec<Entry>)> + use<'l, '_> {
        let here = move |i: &usize| self.producers[*i].partition == partition;
        (0..ledgers.len()).filter(here).map(|i| (i, &ledgers[i]))
    }

    /// Reads every partition from offset 0, for the end.
    pub fn read_all(&self, bootstrap: &str, verdict: &mut Verdict) -> Outcome<Vec<Found>> {
        let mut all = vec![Found::default(); self.partitions as usize];
        for (partition, found) in all.iter_mut().enumerate() {
            found.read_on(bootstrap, TOPIC, partition as i32, verdict)?;
        }
        Ok(all)
    }

    /// Holds final ledgers against what was read.
    pub fn judge_all(&self, found: &[Found], ledgers: &[Vec<Entry>], verdict: &mut Verdict) {
        for (partition, found) in found.iter().enumerate() {
            for (i, ledger) in self.of(partition as i32, ledgers) {
                found.judge(self.producers[i].id, ledger, 0, verdict);
                found.strangers(self.producers[i].id, ledger, verdict);
            }
        }
        for (producer, ledger) in self.producers.iter().zip(ledgers).filter(|(p, _)| p.idempotent) {
            let open = ledger.iter().filter(|entry| !matches!(entry.fate, Fate::Acknowledged(_))).count();
            verdict.unsettled += open as u64;
            if open > 0 {
                verdict
                    .note(format!("idempotent producer {}: {open} batches never acknowledged", producer.id));
            }
        }
    }
}

/// The verdict as one sentence when it is not a pass.
pub fn fault(verdict: &Verdict) -> Option<String> {
    (!verdict.passed()).then(|| {
        format!(
            "lost {}, duplicated {}, reordered {}, foreign {}, unsettled {}; {}",
            verdict.lost,
            verdict.duplicated,
            verdict.reordered,
            verdict.foreign,
            verdict.unsettled,
            verdict.notes.join("; ")
        )
    })
}
