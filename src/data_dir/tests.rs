//! A data directory that is new, ours, another's, in use, damaged.

use super::*;
use crate::failure::Exit;

fn fresh(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pelton-data-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    path
}

fn meta() -> Meta {
    Meta {
        cluster_id: "5m4hXyJ2Q7yTaaaaaaaaaa".to_string(),
        node_id: NodeId(3),
        directory_id: Some(KafkaUuid::from_parts(7, 8)),
        founders: None,
        boot: None,
        start: 41,
        shards: 2,
        generation: 7,
    }
}

fn made(path: &Path) -> DataDir {
    let mut dir = DataDir::open(path).unwrap();
    dir.make_shards(7, 2).unwrap();
    dir.commit(meta()).unwrap();
    dir
}

#[test]
fn what_is_committed_is_read_again() {
    let path = fresh("again");
    drop(made(&path));
    let dir = DataDir::open(&path).unwrap();
    assert_eq!(dir.meta(), Some(&meta()));
    assert!(dir.shard(7, 1).is_dir() && dir.partitions().is_dir());
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn two_brokers_do_not_share_a_directory() {
    let path = fresh("shared");
    let first = made(&path);
    let failure = DataDir::open(&path).unwrap_err();
    assert_eq!(failure.exit, Exit::Error);
    assert!(failure.message.contains("in use by another broker (process "), "{}", failure.message);
    drop(first);
    assert!(DataDir::open(&path).is_ok());
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn another_cluster_or_node_is_refused() {
    let path = fresh("owner");
    let dir = made(&path);
    assert!(dir.check_owner(None, None).is_ok());
    assert!(dir.check_owner(Some(&meta().cluster_id), Some(NodeId(3))).is_ok());
    assert!(dir.check_owner(Some("other"), None).unwrap_err().message.contains("belongs to cluster 5m4h"));
    assert!(dir.check_owner(None, Some(NodeId(4))).unwrap_err().message.contains("belongs to node 3, not 4"));
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn every_flipped_byte_of_meta_is_noticed() {
    let text = meta().encode();
    assert_eq!(Meta::decode(&text), Ok(meta()));
    for at in 0..text.len() - 1 {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        assert!(Meta::decode(&text).is_err(), "byte {at}");
    }
    assert!(Meta::decode("").is_err());
    assert!(Meta::decode(&text.replace("format=2", "format=4")).unwrap_err().contains("format 4"));
    assert!(Meta::decode(&text.replace("format=2", "format=3")).is_err());
}

/// As the program before format 2 wrote it.
const OF_FORMAT_1: &str = "# Pelton data directory. Do not edit; use the same program version or a newer one.\n\
    format=1\ncluster.id=5m4hXyJ2Q7yTaaaaaaaaaa\nnode.id=3\nshards=2\ngeneration=7\ncrc32c=b5e93f79\n";

#[test]
fn a_directory_of_format_1_gets_an_id_and_counts_its_starts() {
    let path = fresh("format-1");
    drop(made(&path));
    fs::write(path.join("meta"), OF_FORMAT_1).unwrap();
    let before = Meta { directory_id: None, start: 0, ..meta() };
    let mut dir = DataDir::open(&path).unwrap();
    assert_eq!(dir.meta(), Some(&before));
    dir.begin_life().unwrap();
    let id = dir.meta().unwrap().directory_id.unwrap();
    assert!(!id.is_reserved());
    drop(dir);
    for start in 2..5 {
        let mut dir = DataDir::open(&path).unwrap();
        dir.begin_life().unwrap();
        assert_eq!(dir.meta(), Some(&Meta { directory_id: Some(id), start, ..meta() }));
    }
    let text = fs::read_to_string(path.join("meta")).unwrap();
    assert!(text.contains("format=2\n") && text.contains(&format!("directory.id={id}\nstart=4\n")), "{text}");
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_start_that_cannot_be_counted_is_an_error_and_changes_nothing() {
    let path = fresh("uncounted");
    let mut dir = made(&path);
    // Something is in the way of the file the new contents are written to.
    fs::create_dir(path.join("meta.new")).unwrap();
    assert!(dir.begin_life().unwrap_err().message.contains("meta"));
    assert_eq!(dir.meta(), Some(&meta()));
    drop(dir);
    assert_eq!(DataDir::open(&path).unwrap().meta(), Some(&meta()));
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn data_without_meta_is_never_started_over() {
    let path = fresh("lost");
    drop(made(&path));
    fs::create_dir_all(path.join("partitions/abc-0")).unwrap();
    fs::remove_file(path.join("meta")).unwrap();
    let failure = DataDir::open(&path).unwrap_err();
    assert_eq!(failure.exit, Exit::Corruption, "{}", failure.message);
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_missing_shard_is_noticed() {
    let path = fresh("shard");
    drop(made(&path));
    fs::remove_dir_all(path.join("g7/shard-1")).unwrap();
    let failure = DataDir::open(&path).unwrap_err();
    assert_eq!(failure.exit, Exit::Corruption);
    assert!(failure.message.contains("shard-1"), "{}", failure.message);
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_directory_of_kafka_is_left_alone() {
    let path = fresh("kafka");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("meta.properties"), "version=1\n").unwrap();
    assert!(DataDir::open(&path).unwrap_err().message.contains("Apache Kafka"));
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_single_node_and_a_node_of_a_cluster_are_not_taken_for_each_other() {
    let path = fresh("kind");
    let mut dir = made(&path);
    assert!(dir.check_kind(false).is_ok());
    let words = dir.check_kind(true).unwrap_err().message;
    assert!(words.contains("records of a single node") && words.contains("without --cluster"), "{words}");
    let founders = Some(vec![NodeId(1), NodeId(3), NodeId(20)]);
    dir.commit(Meta { founders, ..meta() }).unwrap();
    drop(dir);
    let text = fs::read_to_string(path.join("meta")).unwrap();
    assert!(
        text.contains("format=3\n") && text.contains("founders=1,3,20\n"),
        "older programs refuse it: {text}"
    );
    let mut dir = DataDir::open(&path).unwrap();
    assert!(dir.check_kind(true).is_ok());
    let words = dir.check_kind(false).unwrap_err().message;
    assert!(words.contains("--node-id 3 --cluster 1@HOST:PORT,3@HOST:PORT,20@HOST:PORT"), "{words}");
    dir.begin_life().unwrap();
    let again = dir.meta().unwrap();
    assert_eq!((again.start, again.founders.as_ref().map(Vec::len)), (42, Some(3)));
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_node_is_lossy_only_when_its_machine_started_anew_and_it_had_not_stopped() {
    let path = fresh("lossy");
    let mut dir = made(&path);
    assert!(!dir.is_lossy(), "a single node is asked by nobody");
    let started = |boot: Option<&str>| Meta {
        founders: Some(vec![NodeId(3)]),
        boot: boot.map(str::to_string),
        ..meta()
    };
    dir.commit(started(Some("another-boot"))).unwrap();
    assert!(dir.is_lossy());
    dir.begin_life().unwrap();
    assert!(dir.is_lossy(), "a start that the cluster never hears of changes nothing about it");
    dir.be_known().unwrap();
    assert!(!dir.is_lossy(), "the machine is the same since this start");
    dir.end_life().unwrap();
    assert_eq!(DataDir::open(&path).unwrap_err().exit, Exit::Error, "it is still held");
    drop(dir);
    let mut dir = DataDir::open(&path).unwrap();
    assert_eq!(dir.meta().unwrap().boot, None);
    assert!(!dir.is_lossy());
    dir.commit(started(Some(BOOT_UNKNOWN))).unwrap();
    assert!(dir.is_lossy(), "a machine that does not say may have started anew");
    fs::remove_dir_all(path).unwrap();
}
