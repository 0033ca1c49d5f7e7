//! Who leads what, as the nodes themselves say: each is asked all the time, and of two answers the one with the higher leader
//! epoch counts. A node that is cut off keeps saying what was true once.

use crate::connection::Connection;
use pelton_bench::Outcome;
use pelton_bench::frames::{self, Reader};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Metadata, the oldest version with leader epochs.
const METADATA: (i16, i16) = (3, 7);
/// Longest wait for an answer.
const WAIT: Duration = Duration::from_millis(500);
/// An answer older than this says nothing about now.
const FRESH: Duration = Duration::from_secs(2);

/// One partition as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub error: i16,
    /// Broker id; -1: none.
    pub leader: i32,
    pub epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

/// What one node says.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Address by broker id.
    pub brokers: BTreeMap<i32, String>,
    /// Whom it names as the controller: in Pelton itself.
    pub controller: i32,
    /// The topic's error.
    pub error: i16,
    pub partitions: Vec<Seen>,
}

/// A Metadata request for one topic, never creating it.
pub fn request(id: i32, topic: &str) -> Vec<u8> {
    let mut out = frames::start(METADATA, id);
    frames::put_i32(&mut out, 1);
    frames::put_string(&mut out, topic);
    out.push(0);
    frames::finish(out)
}

fn ids(reader: &mut Reader<'_>) -> Outcome<Vec<i32>> {
    (0..reader.count()?).map(|_| reader.i32()).collect()
}

/// Reads the answer.
pub fn answer(frame: &[u8]) -> Outcome<View> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    reader.i32()?;
    let mut view = View::default();
    for _ in 0..reader.count()? {
        let id = reader.i32()?;
        let host = reader.string()?.to_string();
        let port = reader.i32()?;
        reader.string()?;
        view.brokers.insert(id, format!("{host}:{port}"));
    }
    reader.string()?;
    view.controller = reader.i32()?;
    if reader.count()? != 1 {
        return Err("Metadata of one topic was answered for another number".into());
    }
    view.error = reader.i16()?;
    reader.string()?;
    reader.take(1)?;
    let count = reader.count()?;
    view.partitions = vec![Seen { error: 3, leader: -1, ..Seen::default() }; count];
    for _ in 0..count {
        let error = reader.i16()?;
        let index = reader.i32()? as usize;
        let (leader, epoch) = (reader.i32()?, reader.i32()?);
        let seen = Seen { error, leader, epoch, replicas: ids(&mut reader)?, isr: ids(&mut reader)? };
        ids(&mut reader)?;
        *view.partitions.get_mut(index).ok_or("Metadata names a partition past its count")? = seen;
    }
    Ok(view)
}

#[derive(Debug, Default)]
struct State {
    /// By node: when it answered last, and what.
    views: BTreeMap<usize, (Instant, View)>,
    /// The latest leaders known: broker id, its address, epoch.
    leaders: Vec<Option<Leader>>,
    brokers: BTreeMap<i32, String>,
}

/// Who leads a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    pub broker: i32,
    pub address: String,
    pub epoch: i32,
}

/// What all nodes say of one topic.
#[derive(Debug)]
pub struct Directory {
    pub topic: String,
    /// Address of each node, by number from 1 on.
    pub nodes: Vec<String>,
    /// Time between two questions to a node.
    pub interval: Duration,
    state: Mutex<State>,
}

impl Directory {
    /// Nothing known.
    pub fn new(topic: &str, nodes: Vec<String>, interval: Duration) -> Directory {
        Directory { topic: topic.to_string(), nodes, interval, state: Mutex::default() }
    }

    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(|held| held.into_inner()))
    }

    /// Asks one node until told to stop.
    pub fn watch(&self, node: usize, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let _ = self.session(node, stop);
            std::thread::sleep(self.interval.min(Duration::from_millis(50)));
        }
    }

    fn session(&self, node: usize, stop: &AtomicBool) -> Outcome<()> {
        let mut connection = Connection::open(&self.nodes[node - 1])?;
        for id in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let view = answer(&connection.call(id, &request(id, &self.topic), WAIT)?)?;
            self.learn(node, view);
            std::thread::sleep(self.interval);
        }
        Ok(())
    }

    fn learn(&self, node: usize, view: View) {
        self.state(|state| {
            if state.leaders.len() < view.partitions.len() {
                state.leaders.resize(view.partitions.len(), None);
            }
            for (known, seen) in state.leaders.iter_mut().zip(&view.partitions) {
                let newer = known.as_ref().is_none_or(|known| known.epoch < seen.epoch);
                if let Some(address) = view.brokers.get(&seen.leader).filter(|_| newer) {
                    *known =
                        Some(Leader { broker: seen.leader, address: address.clone(), epoch: seen.epoch });
                }
            }
            state.brokers.extend(view.brokers.iter().map(|(id, at)| (*id, at.clone())));
            state.views.insert(node, (Instant::now(), view));
        });
    }

    /// Who leads a partition, as far as is known.
    pub fn leader(&self, partition: i32) -> Option<Leader> {
        self.state(|state| state.leaders.get(partition as usize)?.clone())
    }

    /// How many partitions are known.
    pub fn partitions(&self) -> usize {
        self.state(|state| state.leaders.len())
    }

    /// Every broker that was ever named.
    pub fn brokers(&self) -> BTreeMap<i32, String> {
        self.state(|state| state.brokers.clone())
    }

    /// What is not as it should be when nothing is wrong: every node answers, and sees the same leader and `replicas` in sync for
    /// every partition. None: all is well.
    pub fn trouble(&self, replicas: usize) -> Option<String> {
        self.state(|state| {
            let now = Instant::now();
            let mut first: Option<&View> = None;
            for node in 1..=self.nodes.len() {
                let Some((at, view)) = state.views.get(&node) else {
                    return Some(format!("node {node} has not answered yet"));
                };
                if now - *at > FRESH {
                    return Some(format!("node {node} has not answered for {:?}", now - *at));
                }
                if view.error != 0 || view.partitions.is_empty() {
                    return Some(format!("node {node} says error {} about the topic", view.error));
                }
                for (p, seen) in view.partitions.iter().enumerate() {
                    if seen.leader < 0 || seen.isr.len() != replicas {
                        return Some(format!(
                            "node {node} sees partition {p} with leader {}, ISR {:?}",
                            seen.leader, seen.isr
                        ));
                    }
                    let other = first.and_then(|first| first.partitions.get(p));
                    if let Some(other) =
                        other.filter(|other| (other.leader, other.epoch) != (seen.leader, seen.epoch))
                    {
                        return Some(format!(
                            "nodes see leaders {} and {} of partition {p}",
                            other.leader, seen.leader
                        ));
                    }
                }
                first = first.or(Some(view));
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(leader: i32, epoch: i32, isr: &[i32]) -> View {
        let seen = Seen { leader, epoch, isr: isr.to_vec(), ..Seen::default() };
        let brokers = (1..=3).map(|id| (id, format!("host:{id}"))).collect();
        View { brokers, partitions: vec![seen], ..View::default() }
    }

    #[test]
    fn the_higher_epoch_counts_and_all_must_agree() {
        let directory = Directory::new("t", vec![String::new(); 2], Duration::ZERO);
        directory.learn(1, view(2, 5, &[1, 2]));
        directory.learn(2, view(1, 4, &[1, 2]));
        assert_eq!(directory.leader(0).unwrap().broker, 2);
        assert!(directory.trouble(2).unwrap().contains("leaders 2 and 1"));
        directory.learn(2, view(2, 5, &[1, 2]));
        assert_eq!(directory.trouble(2), None);
        assert!(directory.trouble(3).unwrap().contains("ISR [1, 2]"));
        directory.learn(1, view(-1, 6, &[]));
        assert!(directory.trouble(2).is_some() && directory.leader(0).unwrap().epoch == 5);
    }

    #[test]
    fn answers_are_read() {
        let frame: Vec<u8> = [
            &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, b'h', 0, 0, 0x1f, 0x90, 0xff, 0xff][..],
            &[0xff, 0xff, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, b't', 0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let view = answer(&frame).unwrap();
        assert_eq!(view.brokers[&256], "h:8080");
        let seen = Seen { leader: 256, epoch: 7, replicas: vec![256], ..Seen::default() };
        assert_eq!(view.partitions, [seen]);
        assert!(answer(&frame[..frame.len() - 6]).is_err());
    }
}
