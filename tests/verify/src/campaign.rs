//! A run: three brokers, producers, readers and probers beside them, fault after fault, each undone before the next; then
//! everything is read back and each replica alone.

use crate::book::Book;
use crate::directory::Directory;
use crate::examine;
use crate::fault::{self, Dice, Kind};
use crate::interrupt;
use crate::judge::Evidence;
use crate::producer::{self, Producer};
use crate::quorum;
use crate::reader::{Follower, Prober};
use crate::replica::{self, Log, Logs};
use crate::small_disk::SmallDisk;
use crate::wire::Wire;
use pelton_bench::client::Client;
use pelton_bench::cluster::Cluster;
use pelton_bench::net::NODES;
use pelton_bench::{Outcome, load};
use pelton_crash::commits::Committer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After a fault all must be well within this time, or the run has failed, unless the load says otherwise.
pub const SETTLE: Duration = Duration::from_secs(60);

/// One fault that was done.
#[derive(Clone, Debug)]
pub struct Done {
    pub kind: Kind,
    /// To whom, in words.
    pub what: String,
    /// When it began and when it was undone, milliseconds of the run.
    pub from_ms: u64,
    pub undone_ms: u64,
    /// Time from then until nothing was wrong any more.
    pub settled_ms: u64,
    /// Longest time without an acknowledgement of the partition that waited longest.
    pub gap_ms: u64,
    /// Which partition that was, and who led it and the quorum when the fault began.
    pub waited: String,
}

/// A run under way.
pub struct Campaign {
    pub cluster: Cluster,
    /// The node whose file system is small, and that.
    small: Option<(usize, SmallDisk)>,
    pub directory: Arc<Directory>,
    pub book: Arc<Book>,
    pub producers: Vec<Producer>,
    pub partitions: i32,
    /// Between the nodes, if anything is.
    pub wire: Option<Wire>,
    settle: Duration,
    pub done: Vec<Done>,
    /// Processes that ended by themselves.
    pub ended: Vec<String>,
    followers: Vec<Arc<Follower>>,
    pub probers: Vec<Arc<Prober>>,
    pub committers: Vec<Arc<Committer>>,
    load: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

/// How much load there is.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub partitions: i32,
    /// Time between two batches of a producer.
    pub pause: Duration,
    /// Time between two questions for the leaders.
    pub interval: Duration,
    /// Readers, probers and group members beside the producers.
    pub beside: bool,
    /// After a fault all must be well within this time.
    pub settle: Duration,
    /// `min.insync.replicas` of the topic.
    pub min_isr: &'static str,
    /// Records say that they are so much older than they are.
    pub age_ms: i64,
    /// Bytes of a value of the small batches; none: as usual.
    pub value_bytes: Option<usize>,
}

impl Campaign {
    /// Starts the brokers, makes the topic, starts the clients.
    pub fn start(mut cluster: Cluster, small: Option<(usize, SmallDisk)>, load: Load) -> Outcome<Campaign> {
        for node in 1..=NODES {
            cluster.start(node)?;
        }
        let addresses = cluster.addresses();
        let topic = format!("verify-{}", load::now_ms());
        create(&mut cluster, &addresses, &topic, &load)?;
        let directory = Arc::new(Directory::new(&topic, addresses.clone(), load.interval));
        let stop = Arc::new(AtomicBool::new(false));
        let mut others = Vec::new();
        for node in 1..=NODES {
            let (directory, stop) = (directory.clone(), stop.clone());
            others.push(std::thread::spawn(move || directory.watch(node, &stop)));
        }
        fault::settle(&directory, load.settle)?;
        let mut producers = producer::all(load.partitions, load.pause, !cluster.system.is_pelton());
        for producer in &mut producers {
            producer.age_ms = load.age_ms;
            producer.value_bytes = producer.value_bytes.max(load.value_bytes.unwrap_or(0));
        }
        let book = Arc::new(Book::new(producers.len(), load.partitions as usize));
        let mut campaign = Campaign {
            cluster,
            small,
            directory,
            book,
            producers,
            partitions: load.partitions,
            wire: None,
            settle: load.settle,
            done: Vec::new(),
            ended: Vec::new(),
            followers: Vec::new(),
            probers: Vec::new(),
            committers: Vec::new(),
            load: Vec::new(),
            others,
            stop,
        };
        campaign.start_clients(load.beside, &addresses.join(","));
        Ok(campaign)
    }

    fn start_clients(&mut self, beside: bool, bootstrap: &str) {
        for producer in self.producers.clone() {
            let (directory, book) = (self.directory.clone(), self.book.clone());
            self.load.push(std::thread::spawn(move || producer.run(&directory, &book)));
        }
        if !beside {
            return;
        }
        let partitions = self.partitions;
        for follower in (0..partitions).map(|partition| Arc::new(Follower::new(partition))) {
            self.followers.push(follower.clone());
            let (directory, book, stop) = (self.directory.clone(), self.book.clone(), self.stop.clone());
            self.others.push(std::thread::spawn(move || follower.run(&directory, &book, &stop)));
        }
        for (broker, address) in self.directory.brokers() {
            let prober = Arc::new(Prober::new(broker, address));
            self.probers.push(prober.clone());
            let (directory, book, stop) = (self.directory.clone(), self.book.clone(), self.stop.clone());
            self.others.push(std::thread::spawn(move || prober.run(&directory, &book, partitions, &stop)));
        }
        for (group, consumer) in [("verify-classic", false), ("verify-new", true)] {
            let mut committer = Committer::new(group, consumer, bootstrap, &self.directory.topic);
            committer.timeout = Duration::from_secs(3);
            let committer = Arc::new(committer);
            self.committers.push(committer.clone());
            let stop = self.stop.clone();
            self.others.push(std::thread::spawn(move || committer.run(&stop)));
        }
    }

    /// Milliseconds of the run.
    pub fn now_ms(&self) -> u64 {
        self.book.now_us() / 1000
    }

    /// Processes that have ended by themselves are noted and, so that the run goes on, started again.
    pub fn look_after(&mut self) -> Outcome<()> {
        for node in 1..=NODES {
            if let Some(text) = self.cluster.ended(node) {
                self.ended.push(text);
                self.cluster.start(node)?;
            }
        }
        Ok(())
    }

    /// Waits until every partition has acknowledged something sent from now on.
    fn all_acknowledge(&self, patience: Duration) -> Outcome<()> {
        let (from, from_ms) = (Instant::now(), self.now_ms() + 1);
        loop {
            let silent =
                (0..self.partitions).find(|partition| self.book.beat_after(*partition, from_ms).is_none());
            match silent {
                None => return Ok(()),
                Some(partition) if from.elapsed() > patience => {
                    return Err(format!(
                        "partition {partition} acknowledges nothing, {patience:?} after a fault was undone"
                    ));
                }
                Some(_) => interrupt::sleep(Duration::from_millis(10))?,
            }
        }
    }

    /// One fault, from its beginning until all is well again.
    pub fn strike(&mut self, kind: Kind, dice: &mut Dice) -> Outcome<()> {
        let from_ms = self.now_ms();
        let before = self.roles();
        let what = fault::strike(kind, &mut self.cluster, self.small.as_ref(), &self.directory, dice)?;
        let undone_ms = self.now_ms();
        self.look_after()?;
        let described = |error| format!("{} ({what}): {error}", kind.name());
        fault::settle(&self.directory, self.settle).map_err(described)?;
        self.all_acknowledge(self.settle).map_err(described)?;
        let settled_ms = self.now_ms();
        self.look_after()?;
        let gaps = (0..self.partitions).map(|it| (self.book.gap_ms(it, from_ms, settled_ms), it));
        let (gap_ms, partition) = gaps.max().unwrap_or_default();
        let leader = before.1.get(partition as usize).copied().unwrap_or_default();
        let waited = format!("partition {partition}, led by node {leader}, the quorum by node {}", before.0);
        let settled_ms = settled_ms - undone_ms;
        self.done.push(Done { kind, what, from_ms, undone_ms, settled_ms, gap_ms, waited });
        Ok(())
    }

    /// Waits until all is well again after something that was done and undone.
    pub fn recover(&mut self) -> Outcome<()> {
        self.look_after()?;
        fault::settle(&self.directory, self.settle)?;
        self.all_acknowledge(self.settle)?;
        self.look_after()
    }

    /// What is wrong already, before anything is read back.
    pub fn noticed(&self) -> Option<String> {
        let stale =
            |prober: &Arc<Prober>| prober.first_stale.lock().unwrap_or_else(|held| held.into_inner()).clone();
        let wrong = |committer: &Arc<Committer>| {
            committer.faults.lock().unwrap_or_else(|held| held.into_inner()).first().cloned()
        };
        let told = self.book.faults().into_iter().next();
        let stale = || self.probers.iter().find_map(stale);
        let wrong = || self.committers.iter().find_map(wrong);
        told.or_else(stale)
            .or_else(wrong)
            .or(self.ended.first().cloned())
            .or_else(|| examine::alarm(&self.cluster))
    }

    /// The node that leads the quorum, and each partition's leader.
    fn roles(&self) -> (usize, Vec<usize>) {
        let node = |broker: i32| self.cluster.system.node_of(broker);
        let leaders = (0..self.partitions)
            .map(|partition| self.directory.leader(partition).map_or(0, |leader| node(leader.broker)));
        (quorum::leader(&self.directory.nodes).map_or(0, node), leaders.collect())
    }

    /// Lets the producers come to their end: what is unknown is asked for until it is known.
    pub fn quiesce(&mut self) -> Outcome<()> {
        self.book.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + self.settle;
        while self.load.iter().any(|thread| !thread.is_finished()) {
            if Instant::now() > deadline {
                self.book.abandon.store(true, Ordering::Relaxed);
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for thread in self.load.drain(..) {
            thread.join().map_err(|_| "a producer panicked")?;
        }
        fault::settle(&self.directory, self.settle).map(|_| ())
    }

    /// Everything there is to judge: what the leaders serve, what readers saw, and, with all brokers down, each node's files.
    pub fn evidence(&mut self) -> Outcome<Evidence> {
        let mut served = Vec::new();
        for partition in 0..self.partitions {
            served.push(replica::served(&self.directory, partition)?);
        }
        // Readers get what is left.
        std::thread::sleep(Duration::from_millis(700));
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.others.drain(..) {
            thread.join().map_err(|_| "a reader panicked")?;
        }
        let held =
            |follower: &Arc<Follower>| follower.read.lock().unwrap_or_else(|held| held.into_inner()).clone();
        let read = self.followers.iter().map(held).collect();
        let ends: Vec<i64> = served.iter().map(Log::end).collect();
        self.stop_all(&ends)?;
        let replicas = (1..=NODES).map(|node| self.read_node(node)).collect::<Outcome<Vec<Logs>>>()?;
        let (producers, lines) = (self.producers.clone(), self.book.lines());
        Ok(Evidence { producers, lines, served, read, replicas })
    }

    /// Of Pelton one node ends cleanly, the others by kill -9: both kinds of files are looked at. This is not about Kafka's
    /// recovery, so its nodes are all asked to end.
    fn stop_all(&mut self, ends: &[i64]) -> Outcome<()> {
        if ends.iter().all(|end| *end == 0) {
            return Err("nothing was written".into());
        }
        let asked = if self.cluster.system.is_pelton() { 1 } else { NODES };
        (asked + 1..=NODES).for_each(|node| self.cluster.kill(node));
        (1..=asked).for_each(|node| self.cluster.terminate(node));
        // Without a majority they may not be able to stop in all order: they get a little time.
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && (1..=asked).any(|node| self.cluster.is_alive(node)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        (1..=asked).for_each(|node| self.cluster.kill(node));
        Ok(())
    }

    /// The logs of one node, read from its files.
    pub fn read_node(&self, node: usize) -> Outcome<Logs> {
        let data = self.cluster.data_dir(node);
        let partitions: Vec<(u32, i32)> =
            self.producers.iter().map(|producer| (producer.id, producer.partition)).collect();
        let owner = move |id: u32| {
            partitions.iter().find(|(producer, _)| *producer == id).map(|(_, partition)| *partition)
        };
        let logs = match self.cluster.system.is_pelton() {
            true => replica::pelton(data, &owner),
            false => replica::kafka(data, &self.directory.topic),
        };
        logs.map_err(|error| format!("node {node}: {error}"))
    }

    /// Where the segments of a node are.
    pub fn segments(&self, node: usize) -> std::path::PathBuf {
        let data = self.cluster.data_dir(node);
        if self.cluster.system.is_pelton() { data.to_path_buf() } else { data.join("logs") }
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        self.book.abandon.store(true, Ordering::Relaxed);
        self.stop.store(true, Ordering::Relaxed);
        (1..=NODES).for_each(|node| self.cluster.kill(node));
        for thread in self.load.drain(..).chain(self.others.drain(..)) {
            let _ = thread.join();
        }
    }
}

/// Makes the topic: three replicas, two of which must have what is acknowledged.
fn create(cluster: &mut Cluster, addresses: &[String], topic: &str, load: &Load) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    let (partitions, configs) = (load.partitions, [("min.insync.replicas", load.min_isr)]);
    loop {
        let made = Client::connect(&addresses.join(","), Duration::from_secs(10))
            .and_then(|mut client| client.create_replicated(topic, partitions, NODES as i16, &configs));
        let Err(error) = made else { return Ok(()) };
        // It was made, and only the answer lost.
        if error.contains("error 36") {
            return Ok(());
        }
        if let Some(ended) = (1..=NODES).find_map(|node| cluster.ended(node)) {
            return Err(ended);
        }
        if Instant::now() > deadline {
            return Err(format!("no topic within two minutes: {error}; {}", cluster.last_words(1)));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
