//! Power cuts of nodes whose data is on disks that can lose what was not flushed: of all nodes at once, or of one while the others go on.
//! The node is told that the machine has booted anew, as after a real one.

use crate::campaign::Campaign;
use crate::power_disk::PowerDisk;
use pelton_bench::net::NODES;
use pelton_bench::{Outcome, batch, sys};
use std::path::Path;
use std::time::Duration;

/// Writes fail for this long.
const REFUSED: Duration = Duration::from_millis(300);

/// The boot of the machine, as a node noted it, is another: `meta` with a line changed, and its checksum.
fn other_boot(meta: &str, boot: &str) -> Option<String> {
    let body = &meta[..meta.find("crc32c=")?];
    let lines = body.lines().map(|line| match line.starts_with("boot=") {
        true => format!("boot={boot}\n"),
        false => format!("{line}\n"),
    });
    let body: String = lines.collect();
    Some(format!("{body}crc32c={:08x}\n", batch::crc32c(body.as_bytes())))
}

/// Tells a node that does not run that the machine has booted since.
pub fn boot_anew(data: &Path) -> Outcome<()> {
    let path = data.join("meta");
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let boot = format!("{:032x}", sys::unique());
    let text = other_boot(&text, &boot).ok_or(format!("{}: no checksum", path.display()))?;
    std::fs::write(&path, text).map_err(failed)
}

/// The power of these nodes goes at once, and comes back; they start again. The disks in the order of the nodes.
fn cut(campaign: &mut Campaign, disks: &mut [PowerDisk], nodes: &[usize]) -> Outcome<()> {
    nodes.iter().try_for_each(|node| disks[node - 1].cut().map(drop))?;
    end(campaign, disks, nodes)?;
    nodes.iter().try_for_each(|node| campaign.cluster.start(*node))
}

/// The same, but nothing that was not flushed is left, and they do not start yet.
pub fn take_all(campaign: &mut Campaign, disks: &mut [PowerDisk], nodes: &[usize]) -> Outcome<()> {
    nodes.iter().try_for_each(|node| disks[node - 1].cut_wholly().map(drop))?;
    end(campaign, disks, nodes)
}

fn end(campaign: &mut Campaign, disks: &mut [PowerDisk], nodes: &[usize]) -> Outcome<()> {
    nodes.iter().for_each(|node| campaign.cluster.kill(*node));
    for node in nodes {
        disks[node - 1].restore()?;
        boot_anew(campaign.cluster.data_dir(*node))?;
    }
    Ok(())
}

/// Of all, `times` times, the later ones in the middle of the start.
pub fn cut_all(
    campaign: &mut Campaign,
    disks: &mut [PowerDisk],
    times: usize,
    pause: Duration,
) -> Outcome<()> {
    let all: Vec<usize> = (1..=NODES).collect();
    cut(campaign, disks, &all)?;
    for _ in 1..times {
        std::thread::sleep(pause);
        cut(campaign, disks, &all)?;
    }
    campaign.recover()
}

/// Of each in turn.
pub fn cut_each(campaign: &mut Campaign, disks: &mut [PowerDisk]) -> Outcome<()> {
    (1..=NODES).try_for_each(|node| {
        cut(campaign, disks, &[node])?;
        campaign.recover()
    })
}

/// The writes of each in turn fail for a moment; then it is killed and its disk is sound again.
pub fn refuse_writes(campaign: &mut Campaign, disks: &mut [PowerDisk]) -> Outcome<()> {
    for node in 1..=NODES {
        let disk = &mut disks[node - 1];
        disk.refuse_writes(true)?;
        std::thread::sleep(REFUSED);
        disk.refuse_writes(false)?;
        std::thread::sleep(REFUSED);
        // A process that has seen it may have ended by itself.
        campaign.cluster.kill(node);
        disk.restore()?;
        campaign.cluster.start(node)?;
        campaign.recover()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_boot_is_one_line_and_a_checksum() {
        let meta = "format=1\nboot=a\nnode.id=3\ncrc32c=00000000\n";
        let changed = other_boot(meta, "b").unwrap();
        let body = "format=1\nboot=b\nnode.id=3\n";
        assert_eq!(changed, format!("{body}crc32c={:08x}\n", batch::crc32c(body.as_bytes())));
        assert_eq!(other_boot("format=1\n", "b"), None);
    }
}
