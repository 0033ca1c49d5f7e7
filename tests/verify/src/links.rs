//! Links that are slow, or stand still and go on: this process goes between the nodes for the time of the fault. That it comes and
//! goes ends what they have open with each other, as a switch that is replaced does.

use crate::fault::Dice;
use crate::interrupt;
use crate::wire::{Order, Wire};
use crate::wire_what::What;
use pelton_bench::Outcome;
use pelton_bench::cluster::Cluster;
use pelton_bench::net::NODES;
use std::time::Duration;

/// Nodes have found each other anew by then.
const MET: Duration = Duration::from_millis(600);

/// Gives orders about one node's links, waits, and takes them back.
fn between(
    cluster: &Cluster,
    wait: Duration,
    links: &[(usize, usize)],
    order: impl Fn(&Wire, usize, usize) -> Order,
) -> Outcome<()> {
    let wire = Wire::new(cluster)?;
    interrupt::sleep(MET)?;
    let orders: Vec<Order> = links.iter().map(|(from, to)| order(&wire, *from, *to)).collect();
    interrupt::sleep(wait)?;
    orders.into_iter().for_each(|order| wire.release(order));
    interrupt::sleep(MET)?;
    drop(wire);
    Wire::leave(&cluster.net)
}

/// From a node, to it, or both.
fn directions(node: usize, dice: &mut Dice) -> Vec<(usize, usize)> {
    let others = || (1..=NODES).filter(move |other| *other != node);
    let (from, to) = (others().map(|other| (node, other)), others().map(|other| (other, node)));
    match dice.below(3) {
        0 => from.collect(),
        1 => to.collect(),
        _ => from.chain(to).collect(),
    }
}

/// Everything is late by up to 400 ms.
pub fn slow(cluster: &Cluster, node: usize, dice: &mut Dice) -> Outcome<String> {
    let (links, late, wait) = (directions(node, dice), dice.ms(5, 400), dice.ms(1_000, 6_000));
    between(cluster, wait, &links, |wire, from, to| wire.delay(from, to, What::All, late))?;
    Ok(format!("links {links:?} slower by {late:?} for {wait:?}"))
}

/// Nothing arrives, and then everything, in order; what is held for longer than nodes wait for each other is lost with its connection.
pub fn held(cluster: &Cluster, node: usize, dice: &mut Dice) -> Outcome<String> {
    let (links, wait) = (directions(node, dice), dice.ms(100, 3_000));
    between(cluster, wait, &links, |wire, from, to| wire.hold(from, to, What::All))?;
    Ok(format!("links {links:?} held for {wait:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_are_one_node_s_with_each_other_in_one_direction_or_both() {
        let mut dice = Dice::new(3);
        let all: Vec<Vec<(usize, usize)>> = (0..30).map(|_| directions(2, &mut dice)).collect();
        for wanted in [vec![(2, 1), (2, 3)], vec![(1, 2), (3, 2)], vec![(2, 1), (2, 3), (1, 2), (3, 2)]] {
            assert!(all.contains(&wanted));
        }
    }
}
