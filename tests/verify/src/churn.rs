//! A compacted topic with a ledger of its own, beside the load, while all nodes are killed again and again: of each key the latest must
//! be there, and every node must come up on what it left of its files.

use crate::campaign::Campaign;
use crate::fault::{Dice, Kind};
use pelton_bench::Outcome;
use pelton_bench::client;
use pelton_bench::net::NODES;
use pelton_crash::keyed::{self, Keyed};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Compaction must have removed something by then.
const PATIENCE: Duration = Duration::from_secs(30);
const KILLS: usize = 4;

/// Writes, waits for a compaction, kills, reads back.
pub fn run(campaign: &mut Campaign, dice: &mut Dice) -> Outcome<()> {
    let bootstrap = campaign.cluster.addresses().join(",");
    let configs = keyed::configs();
    let configs: Vec<(&str, &str)> =
        configs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut client = client::Client::connect(&bootstrap, Duration::from_secs(10))?;
    client.create_replicated(keyed::TOPIC, keyed::PARTITIONS, NODES as i16, &configs)?;
    let writers: Vec<Arc<Keyed>> =
        (0..keyed::PARTITIONS).map(|partition| Arc::new(Keyed::new(&bootstrap, partition))).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = writers
        .iter()
        .map(|writer| {
            let (writer, stop) = (writer.clone(), stop.clone());
            std::thread::spawn(move || writer.run(&stop))
        })
        .collect();
    let result = (0..KILLS).try_for_each(|_| check(campaign, dice, &writers, &bootstrap));
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "a writer panicked")?;
    }
    result?;
    // Whoever reads the nodes' files at the end must not take it for the clients' topic.
    client::Client::connect(&bootstrap, Duration::from_secs(10))?.delete_topic(keyed::TOPIC)?;
    campaign.recover()?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

fn check(campaign: &mut Campaign, dice: &mut Dice, writers: &[Arc<Keyed>], bootstrap: &str) -> Outcome<()> {
    let from = Instant::now();
    let idle = || -> Outcome<Option<String>> {
        let mut idle = None;
        for writer in writers {
            let (seen, fault) = loop {
                match writer.check(bootstrap) {
                    // A leader that is new, or not one any more.
                    Err(error) if error.contains("error code") && from.elapsed() < PATIENCE => {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    checked => break checked?,
                }
            };
            if let Some(fault) = fault {
                return Err(fault);
            }
            idle = idle.or(keyed::idle(&writer.snapshot(), &seen));
        }
        Ok(idle)
    };
    while let Some(idle) = idle()? {
        if from.elapsed() > PATIENCE {
            return Err(idle);
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    campaign.strike(Kind::KillAll, dice)?;
    idle().map(|_| ())
}
