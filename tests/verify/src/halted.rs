//! One thread of a broker stands still and the others do not: the node's lease goes on, its shard's must not (rule L3). What others lead
//! by then the shard may not answer for when it goes on, though news of the node's lease lie before those in its ring: more than it takes
//! from there in one turn lies between them, and questions come in every turn.

use crate::campaign::Campaign;
use crate::connection::Connection;
use crate::directory;
use crate::wired::{PATIENCE, Parts, leads};
use pelton_bench::Outcome;
use pelton_bench::frames;
use std::time::{Duration, Instant};

/// What the name of the thread of a node's second shard begins with.
const THREAD: &str = "pelton-shard-1";
/// Connections to the node, of which each shard gets some.
const CONNECTIONS: usize = 24;
/// Questions that fill what is received at once, and those that are judged.
const BEFORE: i32 = 1_500;
const JUDGED: i32 = 400;
/// Messages to the shard: more than it takes in several turns.
const BETWEEN: i32 = 8_000;
/// When they are sent after the thread has stopped: before it is given up, 1.5 s after.
const SENT: Duration = Duration::from_millis(1_300);
const MOMENT: Duration = Duration::from_millis(120);

/// A thread that is stopped; it goes on when this is dropped, or this process ends.
struct Stopped(i32);

impl Stopped {
    fn new(process: u32) -> Outcome<Stopped> {
        let failed = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
        let tasks = format!("/proc/{process}/task");
        let all = std::fs::read_dir(&tasks).map_err(|error| format!("{tasks}: {error}"))?;
        let named = |path: &std::path::Path| {
            std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with(THREAD))
        };
        let found = all.flatten().find(|entry| named(&entry.path()));
        let thread = found.and_then(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
        let thread = thread.ok_or(format!("{tasks}: no thread {THREAD}"))?;
        // SAFETY: system calls about a thread of our own child, without memory of ours.
        unsafe {
            if libc::ptrace(libc::PTRACE_SEIZE, thread, 0, 0) != 0 {
                return Err(failed("ptrace"));
            }
            let stopped = Stopped(thread);
            if libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0, 0) != 0
                || libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) != thread
            {
                return Err(failed("ptrace"));
            }
            Ok(stopped)
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}

/// A question for the end of one partition, so often at once.
fn question(id: i32, topic: &str, partition: i32, times: i32) -> Vec<u8> {
    let mut out = frames::start(frames::LIST_OFFSETS, id);
    frames::put_i32(&mut out, -1);
    frames::put_i32(&mut out, 1);
    frames::put_string(&mut out, topic);
    frames::put_i32(&mut out, times);
    for _ in 0..times {
        frames::put_i32(&mut out, partition);
        out.extend((-1i64).to_be_bytes());
    }
    frames::finish(out)
}

/// Connections of the shard that works, and of the one that does not.
fn told_apart(campaign: &Campaign, mut all: Vec<Connection>) -> Outcome<(Vec<Connection>, Vec<Connection>)> {
    let topic = &campaign.directory.topic;
    all.iter_mut().try_for_each(|connection| connection.send(&directory::request(1, topic)))?;
    std::thread::sleep(MOMENT);
    let (mut works, mut stands) = (Vec::new(), Vec::new());
    for mut connection in all {
        match connection.poll(Duration::from_millis(1))? {
            Some(_) => works.push(connection),
            None => stands.push(connection),
        }
    }
    if works.is_empty() || stands.is_empty() {
        return Err(format!("{} connections are of one shard, {} of the other", works.len(), stands.len()));
    }
    Ok((works, stands))
}

/// A partition that the node leads where the thread stands still: who is asked for it by the other shard does not answer.
fn led_there(campaign: &Campaign, node: usize, works: &mut Vec<Connection>) -> Outcome<Option<i32>> {
    let ours = |partition: &i32| {
        let leader = campaign.directory.leader(*partition);
        leader.is_some_and(|leader| campaign.cluster.system.node_of(leader.broker) == node)
    };
    let led: Vec<i32> = (0..campaign.partitions).filter(ours).collect();
    let mut asked: Vec<(i32, Connection)> = led.into_iter().zip(works.drain(1..)).collect();
    for (partition, connection) in &mut asked {
        connection.send(&question(2, &campaign.directory.topic, *partition, 1))?;
    }
    std::thread::sleep(MOMENT);
    for (partition, mut connection) in asked {
        if connection.poll(Duration::from_millis(1))?.is_none() {
            return Ok(Some(partition));
        }
    }
    Ok(None)
}

/// One node; false if nothing that it leads is where the thread is.
fn once(campaign: &Campaign, node: usize, by: usize) -> Outcome<bool> {
    let (topic, address) = (&campaign.directory.topic, &campaign.directory.nodes[node - 1]);
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(address)?;
        connection.call(0, &directory::request(0, topic), PATIENCE)?;
        all.push(connection);
    }
    let process = campaign.cluster.pid(node).ok_or("the node is down")?;
    let (stopped, from) = (Stopped::new(process)?, Instant::now());
    let (mut works, mut stands) = told_apart(campaign, all)?;
    let Some(partition) = led_there(campaign, node, &mut works)? else { return Ok(false) };
    // Of some what is judged comes at once, of others behind that.
    let half = stands.len() / 2;
    for connection in &mut stands[..half] {
        let frames: Vec<u8> = (0..BEFORE).flat_map(|id| question(id, topic, partition, 1)).collect();
        connection.send(&frames)?;
    }
    std::thread::sleep(SENT.saturating_sub(from.elapsed()));
    works[0].send(&question(3, topic, partition, BETWEEN))?;
    let had = campaign.book.end(partition);
    while leads(campaign, by, partition as usize)? == node || campaign.book.end(partition) <= had {
        if from.elapsed() > PATIENCE {
            return Err(format!(
                "node {node} stands still in part, and nobody else leads partition {partition}"
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let known = campaign.book.end(partition);
    for connection in &mut stands {
        let frames: Vec<u8> = (0..JUDGED).flat_map(|id| question(BEFORE + id, topic, partition, 1)).collect();
        connection.send(&frames)?;
    }
    let stood = from.elapsed();
    drop(stopped);
    for (at, connection) in stands.iter_mut().enumerate() {
        // The first is about the topic.
        connection.poll(PATIENCE)?.ok_or("no answer")?;
        for id in if at < half { 0 } else { BEFORE }..BEFORE + JUDGED {
            let frame = connection.poll(PATIENCE)?.ok_or("no answer")?;
            let (error, offset) = frames::listed_offset(&frame)?;
            if id >= BEFORE && error == 0 && offset < known {
                return Err(format!(
                    "a thread of node {node} stood still for {stood:?}, another leads partition {partition}; \
                     then it said that it ends at {offset} when {known} had been acknowledged"
                ));
            }
        }
    }
    Ok(true)
}

/// Each node that is not the controller, until it was so often that something was led there.
pub fn run(campaign: &mut Campaign) -> Outcome<()> {
    let mut done = 0;
    for turn in [false, true, false, true] {
        let Parts { controller, leader, .. } = Parts::new(campaign, turn)?;
        done += usize::from(once(campaign, leader, controller)?);
        campaign.recover()?;
    }
    if done == 0 { Err("nothing was led where the thread is".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_asks_so_often() {
        let (one, three) = (question(1, "t", 5, 1), question(1, "t", 5, 3));
        assert_eq!(one, frames::list_offset(1, "t", 5, -1));
        assert_eq!(three.len(), one.len() + 2 * 12);
        assert_eq!(three[three.len() - 12..], one[one.len() - 12..]);
    }
}
