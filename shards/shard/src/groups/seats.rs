//! Coordinators come and go with the partitions of `__consumer_offsets` led here.

use std::collections::VecDeque;

use pelton_cluster::names::OFFSETS_TOPIC;
use pelton_group::Coordinator;
use pelton_log::PartitionSlot;
use pelton_model::{LeaderEpoch, Now, Offset, TopicId};

use crate::Shard;
use crate::cluster::Sabotage;
use crate::effect::Effect;
use crate::partitions::Route;
use crate::producing::Blocked;

use super::Seat;
use super::topics::ImageTopics;

impl Shard {
    /// A topic was created or has changed: if it is `__consumer_offsets`, the partitions led here get coordinators.
    pub(crate) fn sync_seats(&mut self, now: Now, id: TopicId, out: &mut Vec<Effect>) {
        let Some(route) = self.partitions.topic_by_id(id).filter(|topic| &*topic.name == OFFSETS_TOPIC)
        else {
            return;
        };
        let routes: Vec<Route> = route.partitions.clone();
        for (partition, route) in routes.into_iter().enumerate() {
            let partition = partition as i32;
            let here = match route {
                Route::Local(slot) => self.leadership(slot).map(|epoch| (slot, epoch)),
                _ => None,
            };
            let seated = self.groups.seats.get(&partition).map(|seat| (seat.slot, seat.leader_epoch));
            if seated == here || self.keeps_seat(partition, here.map(|(slot, _)| slot)) {
                continue;
            }
            if seated.is_some() {
                self.close_seat(now, partition, out);
            }
            if let Some((slot, leader_epoch)) = here {
                self.open_seat(now, partition, slot, leader_epoch, out);
            }
        }
    }

    /// The leadership of a partition here, none if it does not lead; on a single node it has no epoch that counts.
    fn leadership(&self, slot: PartitionSlot) -> Option<Option<LeaderEpoch>> {
        match self.partitions.hosted(slot) {
            Some(_) => self.hosted_leadership(slot).map(Some),
            None => Some(None),
        }
    }

    /// With a fault on purpose: a coordinator outlives its leadership and goes on in the next one, if that is of the same replica.
    fn keeps_seat(&self, partition: i32, here: Option<PartitionSlot>) -> bool {
        let seat = self.groups.seats.get(&partition).filter(|_| self.sabotaged(Sabotage::KeepSeat));
        seat.is_some_and(|seat| here.is_none_or(|slot| slot == seat.slot))
    }

    /// The replica in this slot leads no more.
    pub(crate) fn close_seat_of(&mut self, now: Now, slot: PartitionSlot, out: &mut Vec<Effect>) {
        if let Some(partition) = self.groups.by_slot.get(&slot).copied() {
            self.close_seat(now, partition, out);
        }
    }

    fn open_seat(
        &mut self,
        now: Now,
        partition: i32,
        slot: PartitionSlot,
        leader_epoch: Option<LeaderEpoch>,
        out: &mut Vec<Effect>,
    ) {
        #[cfg_attr(not(feature = "sabotage"), allow(unused_mut))]
        let mut coordinator = Coordinator::new(self.config.group.clone(), self.prng.next_u64());
        #[cfg(feature = "sabotage")]
        coordinator.set_sabotage(self.groups.sabotage);
        let load_offset: Offset = self.storage.log_start_offset(slot);
        let is_empty = load_offset == self.storage.log_end_offset(slot);
        let seat = Seat {
            slot,
            coordinator,
            load_offset,
            reading: None,
            unreadable: 0,
            unsettled: VecDeque::new(),
            blocked: 0,
            deadline_ns: None,
            leader_epoch,
        };
        self.groups.seats.insert(partition, seat);
        self.groups.by_slot.insert(slot, partition);
        if is_empty && leader_epoch.is_none() {
            self.finish_load(now, partition, out);
        } else {
            self.groups.to_load.push_back(partition);
            if self.is_ready() {
                self.start_loading(now);
            }
        }
    }

    /// The partition is gone or led elsewhere: whoever waits is told to look for another coordinator.
    fn close_seat(&mut self, now: Now, partition: i32, out: &mut Vec<Effect>) {
        let Shard { groups, image, blocked, .. } = self;
        let Some(mut seat) = groups.seats.remove(&partition) else { return };
        blocked.retain(|it| !matches!(it, Blocked::Group { partition: other, .. } if *other == partition));
        groups.by_slot.remove(&seat.slot);
        groups.to_load.retain(|other| *other != partition);
        groups.unsettled -= seat.unsettled.len();
        if let Some(deadline_ns) = seat.deadline_ns {
            groups.deadlines.remove(&(deadline_ns, partition));
        }
        let mut effects = Vec::new();
        seat.coordinator.unload(now, &ImageTopics(image), &mut effects);
        // It asks for no appends any more; were there one, there is no seat to make it.
        self.run_group_effects(now, partition, effects, out);
    }

    /// A topic is about to be forgotten. Its offsets go; if it holds the offsets, so do the coordinators.
    pub(crate) fn forget_topic_of_groups(&mut self, now: Now, id: TopicId, out: &mut Vec<Effect>) {
        let Some(topic) = self.partitions.topic_by_id(id) else { return };
        let partitions: Vec<i32> = self.groups.seats.keys().copied().collect();
        if &*topic.name == OFFSETS_TOPIC {
            for partition in partitions {
                self.close_seat(now, partition, out);
            }
            return;
        }
        let names = [topic.name.to_string()];
        for partition in partitions {
            let Shard { groups, image, .. } = self;
            let Some(seat) = groups.seats.get_mut(&partition) else { continue };
            if !seat.coordinator.is_loaded() {
                continue;
            }
            let mut effects = Vec::new();
            seat.coordinator.topics_deleted(now, &names, &ImageTopics(image), &mut effects);
            self.run_group_effects(now, partition, effects, out);
        }
    }
}
