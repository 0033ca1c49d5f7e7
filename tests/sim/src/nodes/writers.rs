//! Producers that write until they are told to stop, while something else is looked at. Whatever was acknowledged to them has to be
//! there in the end, also what only its leader had when it said so.

use super::World;
use super::client::Task;

impl World {
    /// Begins to write to these partitions, with a pause of at most `pace_ns` between two batches. To be told to
    /// [`World::stop_writing`].
    pub(super) fn write_to(
        &mut self,
        partitions: impl Iterator<Item = (&'static str, i32)>,
        wanted_acks: i16,
        pace_ns: u64,
    ) -> usize {
        let first = self.clients.len();
        for (topic, partition) in partitions {
            let mut task = Task::produce(partition, u64::MAX, wanted_acks);
            if let Task::Produce { kept, .. } = &mut task {
                *kept = true;
            }
            self.add(topic, task);
        }
        self.clients[first..].iter_mut().for_each(|client| client.pace_ns = pace_ns);
        first
    }

    /// Those that write, the first of them as [`World::write_to`] said, end with the batch they are at.
    pub(super) fn stop_writing(&mut self, first: usize) {
        for client in &mut self.clients[first..] {
            if let Task::Produce { goal, done, records, .. } = &mut client.task {
                *goal = *done + u64::from(*records > 0);
            }
        }
    }
}
