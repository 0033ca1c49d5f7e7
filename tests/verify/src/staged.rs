//! Faults in several steps, each the shortest way to a state in which one kind of wrong broker must show itself. A broker that does
//! as it should comes through all of them.

use crate::campaign::Campaign;
use crate::connection::Connection;
use crate::fault::{self, Dice, Kind};
use crate::power_disk::PowerDisk;
use crate::{
    churn, damage, deposed, directory, forgotten_cut, frozen, group_moves, group_rules, halted, kept,
    last_copy, lost_power, old_life, power, quorum, trim, two_disks, wired, wired_epochs, wired_isr,
};
use pelton_bench::Outcome;
use pelton_bench::net::NODES;
use pelton_crash::producer::Fate;
use std::path::Path;
use std::time::{Duration, Instant};

/// One step of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// One of the faults of every run.
    Fault(Kind),
    /// Nothing for so many seconds.
    Wait(u64),
    /// Each node in turn cannot talk to the others for longer than a lease, while clients talk to it.
    CutEach,
    /// The same, and kill -9 as soon as all is well, when what it alone had is cut, and a moment later.
    CutThenKill,
    /// Kills of each node, twice, each as soon as the one before is in sync again.
    KillFollowers,
    /// One node less than `min.insync.replicas` asks for: nothing sent meanwhile is acknowledged before it is back.
    TooFew,
    /// SIGTERM to each: when its process has ended, others lead what it led, and the quorum, and know that it has left.
    HandOver,
    /// Disks of two nodes take nothing for a moment, kill -9 of all, and the third one starts later than the others: each in turn.
    Frozen,
    /// A node that is far behind starts before those who have everything.
    LaggardFirst,
    /// A block of a journal changed: the node must not start.
    DamagedJournal,
    /// DeleteRecords while a follower stands still.
    Trim,
    /// Compacted topics and such that lose their beginning, and kill -9 of all nodes meanwhile.
    Churn,
    /// A node starts on a copy of its data directory that it had before its last life.
    OldCopy,
    /// A node leads on such a copy, which was started until it was let in.
    LastCopy,
    /// What members of groups may do and may not, before and after all nodes are killed.
    GroupRules,
    /// Coordinators killed right after a commit.
    GroupsKilled,
    /// Coordinators that move away, and back after a commit elsewhere.
    GroupsMoved,
    /// A group that lives and does not commit, for more than a minute.
    GroupsOld,
    /// A thread of a node stands still, and others lead what it led.
    Halted,
    /// Leaders that hear nothing lose what they lead by an operator's word.
    Deposed,
    /// Each node ends in good order and starts again, one after the other.
    RestartAll,
    /// The power of all nodes goes, so often; the later times in the middle of the start.
    PowerAll(usize),
    /// Two seconds of work and the power of all nodes, so often.
    PowerAgain(usize),
    /// The power of each node in turn.
    PowerEach,
    /// Who lost its power first, without the other who was in sync.
    LossyFirst,
    /// The power of all but the quorum's leader, while their flushes are held.
    UnflushedQuorum,
    /// The power of each node in the moment in which it acknowledges what must be flushed, behind much that is not.
    BehindUnflushed,
    /// The power of each node, with its segments on a disk of their own, right after a compaction.
    TwoDisks,
    /// A group of an earlier life right behind the last of the journal.
    OldLife,
    /// A cut that a checkpoint knows of, and behind that what was cut.
    ForgottenCut,
    /// What compaction must keep though it is no latest value.
    Kept,
    /// Writes of each node in turn fail.
    RefuseWrites,
    /// From here on each flush of a disk takes so many microseconds longer.
    SlowDisks(u64),
    /// A node is fenced and does not hear of it.
    FencedUnheard,
    /// A leader hands over and does not hear that another leads.
    HandedOverUnheard,
    /// A leader is replaced by an operator's word and does not hear so.
    DeposedUnheard,
    /// A node's lease is of the controller before.
    NewController,
    /// A node is to stop while nobody could lead what it leads.
    StoppedInVain,
    /// A follower is taken into the ISR, and its leader does not hear of it and dies.
    TakenInUnheard,
    /// A leader's wish for an ISR comes when the partition is another.
    OldWish,
    /// A leader's wish for an ISR comes when the follower lives another life.
    WishOfOldLife,
    /// A follower has what a new leader knows to be committed, and not all that is.
    ShortFollower,
    /// An answer to a follower's question comes long after the next.
    OldAnswer,
    /// What a follower had in an earlier epoch comes when the same node leads a shorter log.
    OldAck,
}

/// Longer than any lease (1.5 s) and the wait for it.
const BEYOND_LEASE: Duration = Duration::from_millis(3_200);

impl Stage {
    /// Needs disks whose power can be cut.
    pub fn needs_power(self) -> bool {
        use Stage::{
            BehindUnflushed, Frozen, LossyFirst, PowerAgain, PowerAll, PowerEach, RefuseWrites, SlowDisks,
        };
        use Stage::{TwoDisks, UnflushedQuorum};
        matches!(
            self,
            PowerAll(_)
                | PowerAgain(_)
                | PowerEach
                | RefuseWrites
                | SlowDisks(_)
                | Frozen
                | LossyFirst
                | UnflushedQuorum
                | BehindUnflushed
                | TwoDisks
        )
    }
}

/// Less than a quorum takes to miss its leader (0.5 to 1 s).
const WITHOUT_QUORUM: Duration = Duration::from_millis(400);

/// Does it: an error is a fault found. The disks, if there are any, in the order of the nodes.
pub fn run(stage: Stage, campaign: &mut Campaign, disks: &mut [PowerDisk], dice: &mut Dice) -> Outcome<()> {
    let named = |error| format!("{stage:?}: {error}");
    match stage {
        Stage::Fault(kind) => campaign.strike(kind, dice),
        Stage::Wait(seconds) => wait(campaign, seconds),
        Stage::CutEach => (1..=NODES).try_for_each(|node| {
            fault::cut(Kind::CutPeers, &campaign.cluster, node, BEYOND_LEASE)?;
            campaign.recover()
        }),
        Stage::CutThenKill => cut_then_kill(campaign, dice),
        Stage::Churn => churn::run(campaign, dice),
        Stage::OldCopy => old_copy(campaign),
        Stage::LastCopy => last_copy::run(campaign),
        Stage::KillFollowers => (0..6).try_for_each(|round| {
            let node = 1 + round % NODES;
            campaign.cluster.kill(node);
            campaign.cluster.start(node)?;
            campaign.recover()
        }),
        Stage::TooFew => too_few(campaign),
        Stage::HandOver => (1..=NODES).try_for_each(|node| hand_over(campaign, node)),
        Stage::Frozen => frozen::run(campaign, disks),
        Stage::LaggardFirst => laggard_first(campaign),
        Stage::DamagedJournal => damage::journal(campaign),
        Stage::Trim => trim::run(campaign),
        Stage::GroupRules => group_rules::run(campaign),
        Stage::GroupsKilled => group_moves::kill(campaign),
        Stage::GroupsMoved => group_moves::cut(campaign),
        Stage::GroupsOld => group_moves::old(campaign),
        Stage::Halted => halted::run(campaign),
        Stage::Deposed => deposed::run(campaign),
        Stage::RestartAll => restart_all(campaign),
        Stage::PowerAgain(times) => (0..times).try_for_each(|_| {
            wait(campaign, 2)?;
            if campaign.noticed().is_some() {
                return Ok(());
            }
            power::cut_all(campaign, disks, 1, Duration::ZERO)
        }),
        Stage::PowerAll(times) => power::cut_all(campaign, disks, times, dice.ms(100, 900)),
        Stage::PowerEach => power::cut_each(campaign, disks),
        Stage::LossyFirst => lost_power::lossy_first(campaign, disks),
        Stage::UnflushedQuorum => lost_power::unflushed_quorum(campaign, disks),
        Stage::BehindUnflushed => lost_power::behind_unflushed(campaign, disks),
        Stage::TwoDisks => two_disks::run(campaign, disks),
        Stage::OldLife => old_life::run(campaign),
        Stage::ForgottenCut => forgotten_cut::run(campaign),
        Stage::Kept => kept::run(campaign),
        Stage::RefuseWrites => power::refuse_writes(campaign, disks),
        Stage::SlowDisks(us) => disks.iter_mut().try_for_each(|disk| disk.slow(us)),
        Stage::FencedUnheard => wired::fenced_unheard(campaign),
        Stage::HandedOverUnheard => wired::handed_over_unheard(campaign),
        Stage::DeposedUnheard => wired::deposed_unheard(campaign),
        Stage::NewController => wired::new_controller(campaign),
        Stage::StoppedInVain => wired::stopped_in_vain(campaign),
        Stage::TakenInUnheard => wired_isr::taken_in_unheard(campaign),
        Stage::OldWish => wired_isr::old_wish(campaign),
        Stage::WishOfOldLife => wired_isr::wish_of_old_life(campaign),
        Stage::ShortFollower => wired_isr::short_follower(campaign),
        Stage::OldAnswer => wired_epochs::old_answer(campaign),
        Stage::OldAck => wired_epochs::old_ack(campaign),
    }
    .map_err(named)
}

fn wait(campaign: &Campaign, seconds: u64) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline && campaign.noticed().is_none() {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn cut_then_kill(campaign: &mut Campaign, dice: &mut Dice) -> Outcome<()> {
    for node in 1..=NODES {
        fault::cut(Kind::CutPeers, &campaign.cluster, node, BEYOND_LEASE)?;
        campaign.recover()?;
        for pause in [Duration::ZERO, dice.ms(0, 3_000)] {
            std::thread::sleep(pause);
            campaign.cluster.kill(node);
            campaign.cluster.start(node)?;
            campaign.recover()?;
        }
    }
    Ok(())
}

/// Copies a directory as it is.
pub fn copied(from: &Path, to: &Path) -> Outcome<()> {
    let arguments = ["-a", "--sparse=always", &from.to_string_lossy(), &to.to_string_lossy()];
    crate::small_disk::run("cp", &arguments)
}

/// The copy's life is an earlier one, and what was acknowledged since is not in it: the node must not be taken in.
fn old_copy(campaign: &mut Campaign) -> Outcome<()> {
    for node in 1..=NODES {
        let data = campaign.cluster.data_dir(node).to_path_buf();
        let (copy, kept) = (data.with_extension("copy"), data.with_extension("kept"));
        let failed = |error: std::io::Error| format!("{}: {error}", data.display());
        campaign.cluster.kill(node);
        copied(&data, &copy)?;
        campaign.cluster.start(node)?;
        campaign.recover()?;
        campaign.cluster.kill(node);
        std::fs::rename(&data, &kept).and_then(|()| std::fs::rename(&copy, &data)).map_err(failed)?;
        campaign.cluster.start(node)?;
        // All is well also as long as the others have not missed it.
        std::thread::sleep(BEYOND_LEASE);
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut taken = false;
        while Instant::now() < deadline && !taken {
            taken = fault::settle(&campaign.directory, Duration::ZERO).is_ok();
        }
        // It may have ended by itself, which is right.
        campaign.cluster.kill(node);
        std::fs::remove_dir_all(&data).and_then(|()| std::fs::rename(&kept, &data)).map_err(failed)?;
        if taken {
            return Err(format!(
                "node {node} was taken in on a copy of its data directory from before its last life"
            ));
        }
        campaign.cluster.start(node)?;
        campaign.recover()?;
    }
    Ok(())
}

/// Batches sent after `from_us` that are acknowledged already.
fn acknowledged_since(campaign: &Campaign, from_us: u64) -> Option<String> {
    let lines = campaign.book.lines();
    let all =
        lines.iter().enumerate().flat_map(|(producer, lines)| lines.iter().map(move |line| (producer, line)));
    let mut late =
        all.filter(|(_, line)| line.sent_us > from_us && matches!(line.entry.fate, Fate::Acknowledged(_)));
    late.next().map(|(producer, line)| {
        let (sent_us, done_us) = (line.sent_us, line.acknowledged_us);
        format!("a batch of producer {producer}, sent at {sent_us} us, was acknowledged at {done_us} us")
    })
}

fn too_few(campaign: &mut Campaign) -> Outcome<()> {
    for node in 1..=NODES {
        campaign.cluster.kill(node);
        let from_us = campaign.book.now_us();
        std::thread::sleep(Duration::from_millis(4_500));
        if let Some(text) = acknowledged_since(campaign, from_us) {
            return Err(format!(
                "node {node} was dead from {from_us} us on, min.insync.replicas is all; {text}"
            ));
        }
        campaign.cluster.start(node)?;
        campaign.recover()?;
    }
    Ok(())
}

/// What another node says at this moment.
pub fn view(campaign: &Campaign, node: usize) -> Outcome<directory::View> {
    view_of(campaign, node, &campaign.directory.topic)
}

/// The same of any topic.
pub fn view_of(campaign: &Campaign, node: usize, topic: &str) -> Outcome<directory::View> {
    let mut connection = Connection::open(&campaign.directory.nodes[node - 1])?;
    directory::answer(&connection.call(1, &directory::request(1, topic), Duration::from_millis(500))?)
}

/// Others take over before a node ends, not when its lease has, or when the quorum misses its leader (0.5 to 1 s).
fn hand_over(campaign: &mut Campaign, node: usize) -> Outcome<()> {
    campaign.cluster.stop(node, Duration::from_secs(60))?;
    let from = Instant::now();
    let others = (1..=NODES).filter(|other| *other != node);
    let others: Vec<String> = others.map(|other| campaign.directory.nodes[other - 1].clone()).collect();
    // Whoever does not lead asks the one who does, as soon as there is one.
    let controller = quorum::leader(&others);
    if controller.is_none_or(|broker| campaign.cluster.system.node_of(broker) == node)
        || from.elapsed() > WITHOUT_QUORUM
    {
        return Err(format!(
            "{:?} passed after node {node} had ended in good order until the quorum was led",
            from.elapsed()
        ));
    }
    let (from, patience) = (Instant::now(), Duration::from_millis(600));
    let ours = |campaign: &Campaign, broker: i32| campaign.cluster.system.node_of(broker) == node;
    loop {
        let mut left = Vec::new();
        for other in (1..=NODES).filter(|other| *other != node) {
            match view(campaign, other) {
                Err(error) => left.push(error),
                Ok(view) => {
                    let led = view.partitions.iter().filter(|seen| ours(campaign, seen.leader)).count();
                    let listed = view.brokers.keys().any(|broker| ours(campaign, *broker));
                    if led > 0 || listed {
                        left.push(format!(
                            "node {other} says that it leads {led} partitions, is among the brokers: {listed}"
                        ));
                    }
                }
            }
        }
        match left.first() {
            None => break,
            Some(text) if from.elapsed() > patience => {
                return Err(format!("{patience:?} after node {node} had ended in good order {text}"));
            }
            Some(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    campaign.cluster.start(node)?;
    campaign.recover()
}

fn laggard_first(campaign: &mut Campaign) -> Outcome<()> {
    for laggard in 1..=NODES {
        let (second, last) = (laggard % NODES + 1, (laggard + 1) % NODES + 1);
        campaign.cluster.kill(laggard);
        std::thread::sleep(BEYOND_LEASE);
        [second, last].into_iter().for_each(|node| campaign.cluster.kill(node));
        campaign.cluster.start(laggard)?;
        std::thread::sleep(Duration::from_millis(300));
        campaign.cluster.start(second)?;
        std::thread::sleep(BEYOND_LEASE);
        campaign.cluster.start(last)?;
        campaign.recover()?;
    }
    Ok(())
}

fn restart_all(campaign: &mut Campaign) -> Outcome<()> {
    for node in 1..=NODES {
        campaign.cluster.stop(node, Duration::from_secs(60))?;
        campaign.cluster.start(node)?;
        campaign.recover()?;
    }
    Ok(())
}
