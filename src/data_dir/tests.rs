//! A data directory that is new, ours, another's, in use, damaged.

use super::*;
use crate::failure::Exit;

fn fresh(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pelton-data-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    path
}

fn meta() -> Meta {
    Meta { cluster_id: "5m4hXyJ2Q7yTaaaaaaaaaa".to_string(), node_id: NodeId(3), shards: 2, generation: 7 }
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
    assert!(Meta::decode(&text.replace("format=1", "format=2")).unwrap_err().contains("format 2"));
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
