//! Single rules: who dials, who is refused and why, who is silent, what is dropped.

use bytes::Bytes;
use pelton_model::ListenerMode;
use uuid::Uuid;

use super::kit::{MS, Net, identity, peer, place, secret};
use crate::peer::hello::Hello;
use crate::peer::{Identity, Kind, Limits, MEMBER_BYTES, Peer, Secret};

/// Two nodes; the second one as given, known by the first as `known`.
fn two(me: Identity, secret_of_two: Secret, known: Peer) -> Net {
    let mut net = Net::new(1);
    net.add(1, identity(1, 1), secret(), Limits::default());
    net.add(2, me, secret_of_two, Limits::default());
    net.know(1, vec![known]);
    net.know(2, vec![peer(1)]);
    net
}

/// Both logs say it, nobody is up, and it is not tried again all the time.
fn assert_refused(mut net: Net, words: &[&str]) {
    net.run(60_000);
    for node in [1, 2] {
        let state = net.node(node);
        assert!(state.up.is_empty());
        for word in words {
            assert!(
                state.logs.iter().any(|line| line.contains(word)),
                "node {node}: {word}: {:?}",
                state.logs
            );
        }
        let lines = state.logs.len();
        assert!(lines <= 4, "node {node}: {lines} lines: {:?}", state.logs);
    }
    let dials = net.node(1).dials;
    assert!((10..=30).contains(&dials), "{dials} attempts in a minute");
}

#[test]
fn the_lower_place_dials_and_both_exchange_frames() {
    let mut net = Net::of(1, 2);
    net.run(100);
    net.assert_all_up(&[1, 2]);
    assert_eq!((net.node(1).dials, net.node(2).dials), (1, 0));
    let large = Bytes::from((0..3_000_000u32).map(|at| (at % 251) as u8).collect::<Vec<_>>());
    assert!(net.send(1, 2, Kind::Replica, vec![Bytes::from_static(b"head"), large.clone()]));
    assert!(net.send(1, 2, Kind::Member, vec![large.slice(..1000)]));
    assert!(net.send(1, 2, Kind::Member, vec![]));
    assert!(net.send(2, 1, Kind::Replica, vec![Bytes::from_static(b"ack")]));
    net.run(500);
    let frames = std::mem::take(&mut net.node(2).frames);
    assert_eq!(frames.len(), 3);
    assert!(frames[0].0 == place(1, 0) && frames[0].1 == Kind::Replica);
    assert!(frames[0].2[..4] == *b"head" && frames[0].2[4..] == large);
    assert!(frames[1].1 == Kind::Member && frames[1].2 == large.slice(..1000) && frames[2].2.is_empty());
    assert_eq!(net.node(1).frames, [(place(2, 0), Kind::Replica, Bytes::from_static(b"ack"))]);
    net.run(60_000);
    net.assert_all_up(&[1, 2]);
    assert_eq!(net.node(1).dials, 1, "silence of frames is none of the connection");
}

#[test]
fn another_cluster_is_refused_and_both_logs_say_why() {
    let other = Identity { cluster_id: "other".to_string(), ..identity(2, 1) };
    assert_refused(two(other, secret(), peer(2)), &["node 2 to cluster other", "5m4hXyJ2Q7yTaaaaaaaaaa"]);
}

#[test]
fn another_secret_is_refused_also_none() {
    for wrong in [Secret::none(), Secret::from_file(b"another secret of 16").unwrap()] {
        let net = two(identity(2, 1), wrong, peer(2));
        assert_refused(net, &["different cluster secrets", "--cluster-secret-file"]);
    }
}

#[test]
fn another_node_at_the_address_is_refused() {
    let mut net = two(identity(3, 1), secret(), peer(2));
    net.listeners.insert(1002, 2);
    assert_refused(net, &["node 1 dialed node 2 shard 0 and reached node 3 shard 0", "--cluster"]);
}

#[test]
fn a_node_that_reaches_itself_says_so() {
    let mut net = two(identity(2, 1), secret(), peer(2));
    net.listeners.insert(1002, 1);
    net.run(5_000);
    let state = net.node(1);
    assert!(state.up.is_empty());
    assert!(
        state.logs.iter().any(|line| line.contains("node 1 dialed node 2 and reached itself")),
        "{:?}",
        state.logs
    );
}

#[test]
fn two_processes_with_one_node_id_or_one_directory_are_told_apart() {
    let twin = Identity { place: place(1, 0), ..identity(2, 1) };
    assert_refused(two(twin, secret(), peer(2)), &["two processes are node 1", "--node-id"]);
    let copied = Identity { directory: identity(1, 1).directory, ..identity(2, 9) };
    assert_refused(two(copied, secret(), peer(2)), &["nodes 1 and 2 run on copies of one data directory"]);
}

#[test]
fn another_mode_is_refused() {
    let single = Identity { mode: ListenerMode::Single, ..identity(2, 1) };
    let words = ["node 1 was started with --mode direct, node 2 with --mode single", "with the same"];
    assert_refused(two(single, secret(), peer(2)), &words);
}

#[test]
fn another_directory_than_registered_is_refused() {
    let registered = Peer { directory: Some(Uuid::from_u128(5)), ..peer(2) };
    let words = ["node 2 comes with data directory", "not the one it is registered with"];
    assert_refused(two(identity(2, 1), secret(), registered), &words);
    // Also when the metadata say so only later.
    let mut net = Net::of(1, 2);
    net.run(100);
    net.know(2, vec![Peer { directory: Some(Uuid::from_u128(5)), ..peer(1) }]);
    assert!(net.node(2).up.is_empty());
    net.run(100);
    assert!(net.node(1).up.is_empty());
    assert!(net.node(1).logs.iter().any(|line| line.contains("node 1 comes with data directory")));
}

#[test]
fn versions_that_share_nothing_are_told() {
    let hello = Hello { versions: (7, 9), ..Hello::new(&identity(2, 1), place(1, 0), [1; 32]) };
    let mine = Hello::new(&identity(1, 1), place(2, 0), [2; 32]);
    // Whatever follows the part that never changes may look different then.
    let mut bytes = hello.encode().to_vec();
    bytes.truncate(20);
    let read = Hello::decode(&bytes).unwrap();
    let refusal =
        crate::peer::refusal::judge(crate::peer::proof::Role::Dialer, &mine, &read, None).unwrap_err();
    let text = refusal.text(&mine, &read, crate::peer::proof::Role::Dialer);
    assert!(text.contains("node 1 speaks versions 1 to 1") && text.contains("node 2 7 to 9"), "{text}");
}

#[test]
fn a_peer_that_is_silent_is_given_up_and_found_again() {
    let mut net = Net::of(3, 2);
    net.run(100);
    net.cut = vec![(1, 2)];
    net.run(2_500);
    assert!(net.node(2).up.is_empty(), "2 hears nothing and gives up");
    net.run(2_500);
    assert!(net.node(1).up.is_empty(), "so 1 does");
    net.cut.clear();
    net.run(5_000);
    net.assert_all_up(&[1, 2]);
}

#[test]
fn a_long_message_that_trickles_in_is_no_silence() {
    let mut net = Net::of(4, 2);
    net.run(100);
    net.piece_bytes = 2_000;
    net.send(1, 2, Kind::Replica, vec![Bytes::from(vec![7; 8_000_000])]);
    net.run(10_000);
    assert_eq!(net.node(2).frames.len(), 1);
    assert_eq!(net.node(2).peers.counts().opened, 1);
}

#[test]
fn a_process_that_was_paused_does_not_blame_the_others() {
    let mut net = Net::of(5, 3);
    net.run(100);
    net.node(1).paused = true;
    net.run(1_500);
    net.node(1).paused = false;
    net.run(3_000);
    net.assert_all_up(&[1, 2, 3]);
    assert!((1..=3).all(|node| net.nodes[&node].peers.counts().opened == 2), "nobody was given up");
}

#[test]
fn a_restarted_node_takes_the_place_of_its_former_life() {
    let mut net = Net::of(6, 2);
    net.run(100);
    // The crash is not seen: the network forgot to say so.
    net.cut = vec![(2, 1), (1, 2)];
    net.crash(2);
    net.cut.clear();
    net.add(2, identity(2, 2), secret(), Limits::default());
    net.know(2, vec![Peer { eager: true, ..peer(1) }]);
    net.run(200);
    assert_eq!(net.node(1).up.get(&place(2, 0)), Some(&2));
    net.assert_all_up(&[1, 2]);
}

#[test]
fn an_earlier_start_of_a_directory_is_refused_while_a_later_one_is_connected() {
    let mut net = Net::of(7, 2);
    net.crash(2);
    net.add(2, identity(2, 5), secret(), Limits::default());
    net.know(2, vec![peer(1)]);
    net.run(500);
    net.assert_all_up(&[1, 2]);
    // The same directory and node id in another process: a copy of an earlier state.
    net.add(9, identity(2, 4), secret(), Limits::default());
    net.know(9, vec![Peer { eager: true, ..peer(1) }]);
    net.run(5_000);
    assert_eq!(net.node(1).up.get(&place(2, 0)), Some(&5));
    for node in [1, 9] {
        let logs = net.node(node).logs.clone();
        assert!(
            logs.iter().any(|line| line.contains("a later start of the data directory of node 2")),
            "{logs:?}"
        );
    }
}

#[test]
fn of_two_dialed_at_once_one_stays() {
    for seed in 0..300 {
        let mut net = Net::new(seed);
        for node in [1, 2] {
            net.add(node, identity(node, 1), secret(), Limits::default());
        }
        net.know(1, vec![peer(2)]);
        net.know(2, vec![Peer { eager: true, ..peer(1) }]);
        net.piece_bytes = 40;
        net.run(3_000);
        net.assert_all_up(&[1, 2]);
        let opened = net.node(1).peers.counts().opened;
        assert!(opened <= 2, "seed {seed}: {opened} connections");
    }
}

#[test]
fn a_peer_that_does_not_take_what_is_sent_costs_no_more_than_its_queue() {
    let limits = Limits { queue_bytes_max: 1 << 20, ..Limits::default() };
    let mut net = Net::new(8);
    net.add(1, identity(1, 1), secret(), limits);
    net.add(2, identity(2, 1), secret(), limits);
    net.know(1, vec![peer(2)]);
    net.run(100);
    net.stuck = true;
    let frame = || vec![Bytes::from(vec![1; 100_000])];
    let sent = (0..1000).filter(|_| net.send(1, 2, Kind::Replica, frame())).count();
    assert_eq!(sent, 10);
    assert_eq!(net.node(1).peers.counts().dropped_full, 990);
    let sent = (0..1000).filter(|_| net.send(1, 2, Kind::Member, frame())).count();
    assert!(sent > 0 && sent <= MEMBER_BYTES / 100_000 + 1, "{sent} beyond for the quorum");
    assert!(!net.send(1, 2, Kind::Replica, vec![Bytes::from(vec![1; 33 << 20])]), "too long for any queue");
    assert!(!net.send(1, 3, Kind::Replica, frame()), "nobody there");
    assert_eq!(net.node(1).peers.counts().dropped_down, 1);
}

#[test]
fn a_frame_longer_than_the_queue_goes_alone() {
    let limits = Limits { queue_bytes_max: 1000, ..Limits::default() };
    let mut net = Net::new(8);
    net.add(1, identity(1, 1), secret(), limits);
    net.add(2, identity(2, 1), secret(), limits);
    net.know(1, vec![peer(2)]);
    net.run(100);
    assert!(net.send(1, 2, Kind::Replica, vec![Bytes::from(vec![1; 5000])]));
    net.run(100);
    assert_eq!(net.node(2).frames.len(), 1);
}

#[test]
fn strangers_are_few_and_do_not_keep_a_peer_out() {
    let mut net = Net::new(9);
    net.add(1, identity(1, 1), secret(), Limits::default());
    // 200 nodes of another cluster, all at once, and one that belongs here.
    for node in 10..210 {
        net.add(node, identity(node, 1), Secret::none(), Limits::default());
        net.know(node, vec![Peer { eager: true, ..peer(1) }]);
    }
    net.add(2, identity(2, 1), secret(), Limits::default());
    net.know(1, vec![peer(2)]);
    net.run(10_000);
    assert_eq!(net.node(1).up.keys().collect::<Vec<_>>(), [&place(2, 0)]);
    let lines = net.node(1).logs.len();
    assert!(lines < 20, "{lines} lines in ten seconds");
}

#[test]
fn one_that_says_nothing_is_closed_in_time() {
    let mut net = Net::new(10);
    net.add(1, identity(1, 1), secret(), Limits::default());
    net.add(2, identity(2, 1), secret(), Limits::default());
    net.node(2).paused = true;
    net.know(1, vec![peer(2)]);
    net.run(2_200);
    let logs = &net.nodes[&1].logs;
    assert!(logs.iter().any(|line| line.contains("does not say who it is in time")), "{logs:?}");
    net.node(2).paused = false;
    net.run(5_000);
    net.assert_all_up(&[1, 2]);
}

#[test]
fn a_peer_that_is_no_member_any_more_is_let_go_and_one_that_moved_is_found() {
    let mut net = Net::of(11, 3);
    net.run(100);
    net.know(1, vec![peer(2)]);
    net.know(2, vec![peer(1)]);
    net.run(20);
    assert!(net.node(3).logs.iter().any(|line| line.contains("node 3 is not in the cluster any more")));
    net.crash(3);
    net.run(20);
    net.assert_all_up(&[1, 2]);
    // Node 2 goes to another address.
    net.crash(2);
    net.run(3_000);
    net.add(2, identity(2, 2), secret(), Limits::default());
    net.listeners.remove(&1002);
    net.listeners.insert(1500, 2);
    net.know(2, vec![peer(1)]);
    net.know(1, vec![Peer { port: 1500, ..peer(2) }]);
    net.run(30);
    net.assert_all_up(&[1, 2]);
    assert!(net.now_ns < 20_000 * MS);
}
