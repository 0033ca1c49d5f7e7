//! Random requests while appends are under way; the log stores some of them and refuses the rest. What remains is always
//! what the log has, and every request is answered once.

use pelton_model::{GroupConfig, Prng};
use pelton_wire::messages::ConsumerGroupHeartbeatRequestData;

use crate::coordinator::Group;
use crate::request::{GroupRequest, text};
use crate::timers::TimerKey;

use super::tests_kit::{GROUP, Kit, alive, join, owning};

fn request(kit: &Kit, random: &mut Prng) -> ConsumerGroupHeartbeatRequestData {
    let member = format!("m{}", random.below(4));
    let group = match kit.coordinator.groups.get(GROUP) {
        Some(Group::Consumer(group)) => group.clone(),
        _ => Default::default(),
    };
    let current = group.current(&member);
    let is_fixed = group.members.get(&member).is_some_and(|value| value.instance_id.is_some());
    let mut request = match random.below(6) {
        0 => join(&member, &["t", "u"]),
        1 => ConsumerGroupHeartbeatRequestData {
            subscribed_topic_regex: Some(text("u")),
            ..join(&member, &["t"])
        },
        2 => ConsumerGroupHeartbeatRequestData { instance_id: Some(text("i")), ..join(&member, &["t"]) },
        3 => alive(&member, if is_fixed && random.one_in(2) { -2 } else { -1 }),
        _ => owning(&member, current.member_epoch.max(1), &current.assigned),
    };
    if is_fixed {
        request.instance_id = Some(text("i"));
    }
    request
}

#[test]
fn the_state_is_what_the_log_has() {
    for seed in 1..=40 {
        let mut random = Prng::new(seed);
        let consumer_assignment_interval_ms = (seed % 2 == 0).then_some(1000);
        let mut kit = Kit::with(GroupConfig { consumer_assignment_interval_ms, ..GroupConfig::default() });
        kit.topics.set("t", 5);
        kit.topics.set("u", 2);
        kit.holds = true;
        let mut asked = 0;
        for _ in 0..60 {
            for _ in 0..=random.below(4) {
                let request = request(&kit, &mut random);
                kit.ask(1, GroupRequest::ConsumerGroupHeartbeat(request));
                asked += 1;
            }
            if random.one_in(8) {
                let count = random.below(8) as i32 + 1;
                kit.topics.set("t", count);
            }
            let count = random.below(kit.held.len() as u64 + 2) as usize;
            kit.settle_held(count);
            assert!(kit.held.is_empty());
            assert_eq!(kit.answers.len(), asked, "every request is answered");
            match kit.coordinator.groups.get(GROUP) {
                None => assert!(kit.log.is_empty()),
                Some(_) => kit.check_replay(),
            }
            let Some(Group::Consumer(group)) = kit.coordinator.groups.get(GROUP) else { continue };
            for member in group.members.keys() {
                let key = TimerKey::Session(GROUP.to_string(), member.clone());
                assert!(kit.coordinator.timers.is_set(&key), "nobody would notice if {member} died");
            }
        }
    }
}
