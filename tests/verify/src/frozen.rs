//! Followers whose disks take nothing for a moment, and then all processes die: what was acknowledged meanwhile must not have been
//! on the leader alone.

use crate::campaign::Campaign;
use crate::power_disk::PowerDisk;
use pelton_bench::Outcome;
use pelton_bench::net::NODES;
use std::time::Duration;

/// Less than the lease of a node whose controller may stand still (1.5 s), and than `replica.lag.time.max.ms`.
const FROZEN: Duration = Duration::from_millis(700);
/// Longer than any lease and the wait for it: the others have elected leaders.
const WITHOUT: Duration = Duration::from_millis(3_200);

/// Each node in turn is the one whose disk works. It starts later than the others.
pub fn run(campaign: &mut Campaign, disks: &mut [PowerDisk]) -> Outcome<()> {
    for works in 1..=NODES {
        let others: Vec<usize> = (1..=NODES).filter(|node| *node != works).collect();
        others.iter().try_for_each(|node| disks[node - 1].freeze(true))?;
        std::thread::sleep(FROZEN);
        // Before anything is written again. What waits in the kernel gives up when it sees the signal.
        let pids: Vec<u32> = (1..=NODES).filter_map(|node| campaign.cluster.pid(node)).collect();
        for pid in pids {
            // SAFETY: a plain system call, to a process this one has started and not reaped yet.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
        others.iter().try_for_each(|node| disks[node - 1].freeze(false))?;
        (1..=NODES).for_each(|node| campaign.cluster.kill(node));
        others.iter().try_for_each(|node| campaign.cluster.start(*node))?;
        std::thread::sleep(WITHOUT);
        campaign.cluster.start(works)?;
        campaign.recover()?;
    }
    Ok(())
}
