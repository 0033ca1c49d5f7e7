//! What a heartbeat or a classic member's join does to a group: the member is put in or changed, the group epoch and the
//! target assignment follow, and the member takes a step towards its target (Kafka's GroupMetadataManager). Never writes.

use pelton_wire::error_code::ErrorCode;

use crate::records::{Assignment, CurrentValue, MemberValue, Record};
use crate::request::RequestContext;
use crate::topics::TopicsView;
use pelton_model::{GroupConfig, Now};

use super::draft::Draft;
use super::reconcile::Reconcile;
use super::regexes::Resolver;
use super::request::{Ask, Refusal};
use super::target::{bump_epoch, update_targets};
use super::{ConsumerGroup, SeenTopics, join};

/// What it is judged by.
pub(crate) struct Surroundings<'a> {
    pub context: &'a RequestContext,
    pub config: &'a GroupConfig,
    pub topics: &'a dyn TopicsView,
    pub now: Now,
    /// A fault on purpose: partitions that others own count as free.
    pub ignores_owners: bool,
}

/// What it leads to.
pub(crate) struct Beat {
    pub records: Vec<Record>,
    /// The member now.
    pub value: MemberValue,
    pub current: CurrentValue,
    /// Anything of `current` has changed.
    pub has_moved: bool,
    /// What the member owns has changed.
    pub has_new_assignment: bool,
    /// The static member's id before.
    pub replaced: Option<String>,
    pub seen_topics: Option<SeenTopics>,
    /// It made a target assignment.
    pub made_target: bool,
}

impl Surroundings<'_> {
    /// Takes the member's heartbeat or join; the group is left as it was.
    pub fn beat(&self, group: &mut ConsumerGroup, id: &str, ask: &Ask) -> Result<Beat, Refusal> {
        if group.members.len() >= self.config.consumer_max_size && !group.members.contains_key(id) {
            let message = format!(
                "The consumer group has reached its maximum capacity of {} members.",
                self.config.consumer_max_size
            );
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        let mut draft = Draft::new(&ask.group, group);
        let sender = join::find(&mut draft, id, ask)?;
        let value = join::update(&mut draft, id, sender.value.as_ref(), ask, self.context, self.config)?;
        let was = sender.value.as_ref();
        let no_names = Default::default();
        let has_new_names =
            was.map_or(&no_names, |was| &was.subscribed_topic_names) != &value.subscribed_topic_names;
        // An empty pattern is none.
        let old_regex =
            was.and_then(|was| was.subscribed_topic_regex.as_deref()).filter(|regex| !regex.is_empty());
        let new_regex = value.subscribed_topic_regex.as_deref().filter(|regex| !regex.is_empty());
        let has_new_regex = old_regex != new_regex;
        let resolver = self.resolver();
        if has_new_regex {
            resolver.change(&mut draft, old_regex, new_regex)?;
        }
        let has_new_topics = resolver.refresh(&mut draft);
        let must_bump = draft.group().epoch.epoch == 0 || has_new_names || has_new_regex || has_new_topics;
        let seen_topics = self.look_at_topics(&mut draft, must_bump);
        let made_target = self.may_make_target(draft.group(), id, ask);
        if made_target {
            update_targets(&mut draft, self.config, self.topics);
        }
        let next = self.reconcile(&mut draft, id, ask, has_new_names || has_new_regex)?;
        Ok(Beat {
            records: draft.finish(),
            value,
            has_moved: next != sender.current,
            has_new_assignment: next.assigned != sender.current.assigned,
            current: next,
            replaced: sender.replaced.filter(|old| old != id),
            seen_topics,
            made_target,
        })
    }

    fn resolver(&self) -> Resolver<'_> {
        Resolver {
            topics: self.topics,
            now_ms: self.now.wall_ms,
            bytes_max: self.config.regex_bytes_max,
            refresh_interval_ms: self.config.regex_refresh_interval_ms,
        }
    }

    /// Whether the target assignment of the group epoch is made now, not later. Classic members do not wait: they would join again
    /// and again until it is there.
    fn may_make_target(&self, group: &ConsumerGroup, id: &str, ask: &Ask) -> bool {
        let may = || {
            let from_ns = group.assigns_from_ns(&self.topics.group_config(self.config, &ask.group));
            self.now.monotonic_ns >= from_ns || ask.classic.is_some() || (ask.joins && group.has_gone(id))
        };
        group.epoch.epoch > group.target_epoch && may()
    }

    /// Begins a new group epoch if it must, or if the subscribed topics have changed since the last look.
    fn look_at_topics(&self, draft: &mut Draft<'_>, must_bump: bool) -> Option<SeenTopics> {
        let version = self.topics.version();
        let epoch = draft.group().epoch.epoch;
        let is_current = |seen: SeenTopics| seen.version == version && seen.epoch <= epoch;
        if !must_bump && draft.group().seen_topics.is_some_and(is_current) {
            return None;
        }
        bump_epoch(draft, must_bump, self.topics);
        Some(SeenTopics { version, epoch: draft.group().epoch.epoch })
    }

    /// Takes the member's next step.
    fn reconcile(
        &self,
        draft: &mut Draft<'_>,
        id: &str,
        ask: &Ask,
        subscription_changed: bool,
    ) -> Result<CurrentValue, Refusal> {
        let group = draft.group();
        let current = group.current(id);
        if !subscription_changed && group.is_reconciled(id) {
            return Ok(current);
        }
        let nothing = Assignment::new();
        let subscribed =
            group.members.get(id).map(|member| group.subscribed_ids(member, self.topics)).unwrap_or_default();
        let next = Reconcile {
            current: &current,
            target_epoch: group.target_epoch,
            target: group.targets.get(id).unwrap_or(&nothing),
            subscribed: &subscribed,
            subscription_changed,
            owned: ask.owned.as_ref(),
            is_free: &|topic, partition| {
                self.ignores_owners || group.owners.get(&(topic, partition)).is_none_or(|owner| owner == id)
            },
        }
        .next()?;
        if next != current {
            draft.set_current(id, next.clone());
        }
        Ok(next)
    }
}
