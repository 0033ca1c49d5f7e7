//! What members of a group may do and what not, on real brokers: generations and member epochs rise, a commit of an earlier one is
//! refused, and no partition is given to a member while another has it (KIP-848); also after all nodes were killed.

use crate::campaign::Campaign;
use pelton_bench::Outcome;
use pelton_bench::group_client::{
    GroupClient, ILLEGAL_GENERATION, MEMBER_ID_REQUIRED, MOVES, REBALANCE, new_member_id,
};
use pelton_bench::group_frames::{Beat, Beaten};
use pelton_bench::net::NODES;
use std::time::{Duration, Instant};

/// STALE_MEMBER_EPOCH.
const STALE: i16 = 113;
const WAIT: Duration = Duration::from_secs(20);

fn connect(campaign: &Campaign, group: &str) -> Outcome<GroupClient> {
    GroupClient::connect(&campaign.cluster.addresses().join(","), group, WAIT, WAIT)
}

/// A member's commit. While the coordinator moves it is looked up anew, as clients do.
fn commit(
    campaign: &Campaign,
    client: &mut GroupClient,
    (group, generation, name): (&str, i32, &str),
    offsets: &[(i32, i64)],
) -> Outcome<()> {
    let deadline = Instant::now() + WAIT;
    loop {
        match client.commit(generation, name, &campaign.directory.topic, offsets)? {
            0 => return Ok(()),
            code if MOVES.contains(&code) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
                *client = connect(campaign, group)?;
            }
            code => return Err(format!("a member's commit was answered with error code {code}")),
        }
    }
}

/// Classic members: the second that joins moves the generation, and with the first one's nothing may be committed any more.
fn classic(campaign: &Campaign, group: &str) -> Outcome<()> {
    let topic = campaign.directory.topic.clone();
    let (mut first, mut second) = (connect(campaign, group)?, connect(campaign, group)?);
    let mut name = String::new();
    let old = first.join_alone(&mut name, &topic, campaign.partitions)?;
    commit(campaign, &mut first, (group, old, &name), &[(0, 1)])?;
    let joining = {
        let topic = topic.clone();
        std::thread::spawn(move || -> Outcome<i32> {
            let mut name = String::new();
            loop {
                let joined = second.join(&name, &topic)?;
                match joined.error {
                    0 => return Ok(joined.generation),
                    MEMBER_ID_REQUIRED => name = joined.member_id,
                    code => return Err(format!("JoinGroup: error code {code}")),
                }
            }
        })
    };
    let deadline = Instant::now() + WAIT;
    while first.heartbeat(old, &name)? != REBALANCE {
        if Instant::now() > deadline {
            return Err("no rebalance though a second member joins".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let new = first.join(&name, &topic)?;
    let theirs = joining.join().map_err(|_| "a member panicked")??;
    if new.error != 0 || new.generation != theirs || theirs <= old {
        return Err(format!("generation {old} was followed by {new:?}, and {theirs} for the second member"));
    }
    // With the group between two generations the answer may be that it rebalances; the old generation is wrong at any time.
    match first.commit(old, &name, &topic, &[(0, 2)])? {
        ILLEGAL_GENERATION => Ok(()),
        code => Err(format!("a commit of generation {old} in {theirs} was answered with error code {code}")),
    }
}

/// A member of the new protocol.
struct Member {
    client: GroupClient,
    id: String,
    epoch: i32,
    topic_id: [u8; 16],
    owned: Vec<i32>,
}

impl Member {
    /// Beats; `says` what it owns.
    fn beat(&mut self, group: &str, topic: Option<&str>, says: bool) -> Outcome<Beaten> {
        let owned = says.then_some((self.topic_id, &self.owned[..]));
        let answer =
            self.client.beat(&Beat { group, member_id: &self.id, epoch: self.epoch, topic, owned })?;
        if answer.error != 0 {
            return Err(format!("ConsumerGroupHeartbeat: error code {} {}", answer.error, answer.message));
        }
        self.epoch = answer.epoch;
        Ok(answer)
    }

    fn join(campaign: &Campaign, group: &str, seed: u64) -> Outcome<Member> {
        let (client, id) = (connect(campaign, group)?, new_member_id(seed));
        let mut member = Member { client, id, epoch: 0, topic_id: [0; 16], owned: Vec::new() };
        let answer = member.beat(group, Some(&campaign.directory.topic), true)?;
        member.take(answer);
        Ok(member)
    }

    fn take(&mut self, answer: Beaten) {
        if let Some((id, partitions)) = answer.assignment {
            self.topic_id = id;
            self.owned = partitions;
        }
    }

    /// Beats until it has something.
    fn wait_for_partitions(&mut self, group: &str) -> Outcome<()> {
        let deadline = Instant::now() + WAIT;
        while self.owned.is_empty() {
            let answer = self.beat(group, None, false)?;
            self.take(answer);
            if Instant::now() > deadline {
                return Err("a member is given nothing".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn consumer(campaign: &Campaign, group: &str) -> Outcome<(Member, Member)> {
    let topic = campaign.directory.topic.clone();
    let mut first = Member::join(campaign, group, 21)?;
    first.wait_for_partitions(group)?;
    first.beat(group, None, true)?;
    let had = first.owned.clone();
    let mut second = Member::join(campaign, group, 22)?;
    for _ in 0..10 {
        let both: Vec<&i32> = second.owned.iter().filter(|partition| had.contains(partition)).collect();
        if !both.is_empty() {
            return Err(format!(
                "partitions {both:?} were given to a second member before the first gave them back"
            ));
        }
        let answer = second.beat(group, None, false)?;
        second.take(answer);
        std::thread::sleep(Duration::from_millis(20));
    }
    let old = first.epoch;
    let deadline = Instant::now() + WAIT;
    while first.epoch == old {
        let answer = first.beat(group, None, true)?;
        first.take(answer);
        if Instant::now() > deadline {
            return Err(format!("the member epoch stays {old} though another member has joined"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    match first.client.commit(old, &first.id, &topic, &[(0, 1)])? {
        STALE => {}
        code => {
            return Err(format!(
                "a commit of member epoch {old} in {} was answered with error code {code}",
                first.epoch
            ));
        }
    }
    Ok((first, second))
}

/// What is committed for every partition; none while the coordinator loads or moves.
fn committed(campaign: &Campaign, group: &str) -> Outcome<Vec<(i32, i64)>> {
    let (topic, deadline) = (&campaign.directory.topic, Instant::now() + WAIT);
    let all: Vec<i32> = (0..campaign.partitions).collect();
    loop {
        match connect(campaign, group)?.offsets(topic, &all)? {
            (0, found) => return Ok(found),
            (code, _) if MOVES.contains(&code) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            (code, _) => return Err(format!("OffsetFetch: error code {code}")),
        }
    }
}

/// A commit that no other node has yet is nothing that anyone may be told of: the others stand still, and it is asked for.
fn fetched_early(campaign: &mut Campaign, group: &str) -> Outcome<()> {
    let topic = campaign.directory.topic.clone();
    let mut name = String::new();
    let mut client = connect(campaign, group)?;
    let generation = client.join_alone(&mut name, &topic, campaign.partitions)?;
    for (round, offset) in (1..=12i64).map(|number| (number as usize, number * 8 - 1)) {
        let all: Vec<(i32, i64)> = (0..campaign.partitions).map(|partition| (partition, offset)).collect();
        commit(campaign, &mut client, (group, generation, &name), &all)?;
        // Who coordinates is not known here: each pair of nodes stands still in turn.
        let still: Vec<usize> = (1..=NODES).filter(|node| *node != 1 + round % NODES).collect();
        let mut asking = connect(campaign, group)?;
        asking.offsets(&topic, &[0])?;
        still.iter().for_each(|node| campaign.cluster.halt(*node));
        let asked = std::thread::spawn({
            let topic = topic.clone();
            let later = vec![(0, offset + 1)];
            let name = name.clone();
            move || (client.commit(generation, &name, &topic, &later), client)
        });
        std::thread::sleep(Duration::from_millis(100));
        let found = std::thread::spawn({
            let topic = topic.clone();
            move || asking.offsets(&topic, &[0])
        });
        std::thread::sleep(Duration::from_millis(150));
        let told = found.is_finished();
        still.iter().for_each(|node| campaign.cluster.go_on(*node));
        let found = found.join().map_err(|_| "a reader panicked")?;
        let (answer, again) = asked.join().map_err(|_| "a member panicked")?;
        client = again;
        if let (true, Ok((0, found))) = (told, &found)
            && found.first().is_some_and(|(_, found)| *found > offset)
        {
            return Err(format!(
                "nodes {still:?} stood still, {offset} was committed, and yet {found:?} was told of the commit that was under way"
            ));
        }
        match answer {
            Ok(0) => {}
            // The others were not back in time, or the group has moved: somebody else's matter.
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Commits offsets of every kind in several groups.
fn commit_some(campaign: &Campaign, group: &str, first: i64) -> Outcome<Vec<(i32, i64)>> {
    let topic = &campaign.directory.topic;
    let mut client = connect(campaign, group)?;
    let mut name = String::new();
    let generation = client.join_alone(&mut name, topic, campaign.partitions)?;
    let offsets: Vec<(i32, i64)> =
        (0..campaign.partitions).map(|partition| (partition, first + i64::from(partition))).collect();
    commit(campaign, &mut client, (group, generation, &name), &offsets)?;
    Ok(offsets)
}

/// All of it, then kills all nodes: what was committed is, a member goes on in its epoch, and whoever joins later is in a later one.
pub fn run(campaign: &mut Campaign) -> Outcome<()> {
    for number in 0..3 {
        classic(campaign, &format!("rules-classic-{number}"))?;
    }
    let kept: Vec<(String, Vec<(i32, i64)>)> = (0..4i64)
        .map(|number| {
            let group = format!("rules-kept-{number}");
            commit_some(campaign, &group, 100 + number * 6).map(|offsets| (group, offsets))
        })
        .collect::<Outcome<_>>()?;
    let group = "rules-consumer";
    let (mut first, _) = consumer(campaign, group)?;
    let epoch = first.epoch;
    (1..=NODES).for_each(|node| campaign.cluster.kill(node));
    (1..=NODES).try_for_each(|node| campaign.cluster.start(node))?;
    campaign.recover()?;
    for (group, offsets) in &kept {
        let found = committed(campaign, group)?;
        if found != *offsets {
            return Err(format!("group {group} had committed {offsets:?}; after a restart {found:?}"));
        }
    }
    let deadline = Instant::now() + WAIT;
    loop {
        first.client = connect(campaign, group)?;
        let answer =
            first.client.beat(&Beat { group, member_id: &first.id, epoch, topic: None, owned: None });
        match answer {
            Ok(answer) if answer.error == 0 => break,
            Ok(answer) if !MOVES.contains(&answer.error) => {
                return Err(format!(
                    "after a restart a member of epoch {epoch} is told error code {}",
                    answer.error
                ));
            }
            answer if Instant::now() > deadline => return Err(format!("{answer:?}")),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    let third = Member::join(campaign, group, 23)?;
    if third.epoch <= epoch {
        return Err(format!(
            "after a restart a member joined in epoch {}, behind {epoch} before it",
            third.epoch
        ));
    }
    fetched_early(campaign, "rules-early")
}
