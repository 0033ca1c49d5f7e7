//! Stages about who is in sync (rules R9, R10), with this process between the nodes: wishes of leaders that come late, decisions that
//! they do not hear of, followers that lack what an earlier leader has acknowledged.

use crate::campaign::Campaign;
use crate::staged;
use crate::wire::Kept;
use crate::wire_what::What;
use crate::wired::{
    FENCED, PATIENCE, Parts, arrange, in_sync, leads, partition_of, restart, silence, wait_for, wait_in_sync,
    wait_listed, wire,
};
use pelton_bench::Outcome;
use std::time::{Duration, Instant};

/// So often it is tried to have something acknowledged that one follower lacks.
const ATTEMPTS: usize = 4;
/// A wish without an answer is said again after half a second: by then every partition's has been.
const SAID: Duration = Duration::from_millis(1_300);
/// A follower is so far behind.
const LATE: Duration = Duration::from_millis(300);
/// Something is acknowledged within it.
const MOMENT: Duration = Duration::from_millis(500);

/// Kills a leader, waits until someone else leads the partition, and starts it again when that is so.
fn depose(campaign: &mut Campaign, by: usize, leader: usize, partition: usize) -> Outcome<()> {
    campaign.cluster.kill(leader);
    wait_for(campaign, "another leads", |campaign| {
        let now = leads(campaign, by, partition)?;
        Ok(now != 0 && now != leader)
    })?;
    std::thread::sleep(MOMENT);
    campaign.wire.as_ref().inspect(|wire| wire.clear());
    campaign.cluster.start(leader)?;
    campaign.recover()
}

/// The controller has taken a follower into the ISR, and the leader does not know yet and dies: whatever it acknowledged meanwhile,
/// the follower must have (rule R6: the maximal ISR).
pub fn taken_in_unheard(campaign: &mut Campaign) -> Outcome<()> {
    arrange(campaign)?;
    let Parts { controller, leader, third } = Parts::new(campaign, false)?;
    let partition = partition_of([third, leader, controller]);
    let between = wire(campaign)?;
    between.lose(controller, leader, What::Transfers);
    let wishes = between.hold(leader, controller, What::Isr);
    restart(campaign, controller, third)?;
    std::thread::sleep(SAID);
    let between = wire(campaign)?;
    if between.kept(wishes, |_| true) == 0 {
        return Err("nobody was to be taken into an ISR".into());
    }
    between.lose(leader, third, What::Appends);
    between.hold(controller, leader, What::Entries);
    between.lose(controller, leader, What::Answers);
    between.release(wishes);
    wait_in_sync(campaign, controller, partition)?;
    std::thread::sleep(2 * MOMENT);
    depose(campaign, controller, leader, partition)
}

/// A wish to take a follower in comes when the partition has changed since: when that follower was in and has gone again, with less
/// than was acknowledged since.
pub fn old_wish(campaign: &mut Campaign) -> Outcome<()> {
    arrange(campaign)?;
    let Parts { controller, leader, third } = Parts::new(campaign, false)?;
    let partition = partition_of([third, leader, controller]);
    let between = wire(campaign)?;
    between.lose(controller, leader, What::Transfers);
    silence(campaign, controller, third)?;
    let wishes = between.hold(leader, controller, What::Isr);
    wait_listed(campaign, controller, third)?;
    std::thread::sleep(SAID);
    let old: Vec<Kept> = between.take(wishes);
    if old.is_empty() {
        return Err("nobody was to be taken into an ISR".into());
    }
    wait_in_sync(campaign, leader, partition)?;
    between.lose(leader, third, What::Appends);
    silence(campaign, controller, third)?;
    wait_listed(campaign, controller, third)?;
    std::thread::sleep(MOMENT);
    old.into_iter().for_each(Kept::send);
    std::thread::sleep(MOMENT);
    depose(campaign, controller, leader, partition)
}

/// A wish to take a follower in comes when that lives another life. It is of no use: nobody waits for a life that has ended.
pub fn wish_of_old_life(campaign: &mut Campaign) -> Outcome<()> {
    let Parts { controller, leader, third } = Parts::new(campaign, false)?;
    let wishes = wire(campaign)?.hold(leader, controller, What::Isr);
    restart(campaign, controller, third)?;
    std::thread::sleep(SAID);
    let between = wire(campaign)?;
    let later = between.lose(leader, controller, What::Isr);
    let old = between.take(wishes);
    if old.is_empty() {
        return Err("nobody was to be taken into an ISR".into());
    }
    restart(campaign, controller, third)?;
    std::thread::sleep(MOMENT);
    old.into_iter().for_each(Kept::send);
    std::thread::sleep(MOMENT);
    wire(campaign)?.take(later);
    campaign.recover()
}

/// A new leader knows less of the high watermark than its predecessor has acknowledged, and a follower has what it knows, and no more.
/// That is not enough to be in sync (rule R10).
pub fn short_follower(campaign: &mut Campaign) -> Outcome<()> {
    for _ in 0..ATTEMPTS {
        if let Some((parts, partition)) = leave_short(campaign)? {
            return take_short(campaign, &parts, partition);
        }
        wire(campaign)?.clear();
        campaign.recover()?;
    }
    Err("nothing was acknowledged that one follower does not have".into())
}

/// Something is acknowledged that a follower out of sync lacks, and that the next leader does not know to be committed; of which
/// partition. None: nothing happened to be.
fn leave_short(campaign: &mut Campaign) -> Outcome<Option<(Parts, usize)>> {
    arrange(campaign)?;
    let parts = Parts::new(campaign, false)?;
    let Parts { controller, leader, third } = parts;
    let partition = partition_of([leader, controller, third]);
    let between = wire(campaign)?;
    // Out of sync, and always a little behind, so that its leader does not want it in.
    silence(campaign, controller, third)?;
    let late = between.delay(leader, third, What::Appends, LATE);
    between.lose(leader, controller, What::Isr);
    wait_listed(campaign, controller, third)?;
    std::thread::sleep(SAID);
    // What the leader sends from here on one follower gets and does not acknowledge, and the other does not get. That is up to what
    // was acknowledged by now, a little later.
    let acks = between.hold(controller, leader, What::Acks);
    let before = campaign.book.end(partition as i32);
    between.lose(third, leader, What::Acks);
    between.take(late);
    between.lose(leader, third, What::Appends);
    between.lose(controller, third, What::Appends);
    std::thread::sleep(MOMENT);
    // It is acknowledged, and the next leader does not hear so.
    between.lose(leader, controller, What::Appends);
    between.release(acks);
    std::thread::sleep(MOMENT);
    Ok((campaign.book.end(partition as i32) > before).then_some((parts, partition)))
}

/// The leader is gone, and the controller, which leads next, hears of the follower: it must not take it in before it is sure. Then
/// only that follower and the former leader are left.
fn take_short(campaign: &mut Campaign, parts: &Parts, partition: usize) -> Outcome<()> {
    let Parts { controller, leader, third } = *parts;
    campaign.cluster.kill(leader);
    wait_for(campaign, "the controller leads", |campaign| {
        Ok(leads(campaign, controller, partition)? == controller)
    })?;
    let deadline = Instant::now() + FENCED;
    let mut taken = false;
    while !taken && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        taken = in_sync(campaign, &staged::view(campaign, controller)?, partition).contains(&third);
    }
    campaign.cluster.kill(controller);
    campaign.cluster.start(leader)?;
    let deadline = Instant::now() + PATIENCE;
    while leads(campaign, third, partition).ok().is_none_or(|now| now == 0 || now == controller)
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(MOMENT);
    campaign.wire.as_ref().inspect(|wire| wire.clear());
    campaign.cluster.start(controller)?;
    campaign.recover()
}
