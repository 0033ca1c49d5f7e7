//! The steps of a redistribution, and a crash after each of them. What the checkpoints hold is tested in pelton-log; that
//! the data survive, by the client tests with real shards.

use super::*;
use std::path::PathBuf;

fn meta(shards: u16, generation: u32) -> Meta {
    let cluster_id = "5m4hXyJ2Q7yTaaaaaaaaaa".to_string();
    Meta {
        cluster_id,
        node_id: NodeId(1),
        directory_id: None,
        founders: None,
        boot: None,
        start: 3,
        shards,
        generation,
    }
}

fn directory(name: &str) -> (PathBuf, DataDir) {
    let path = std::env::temp_dir().join(format!("pelton-reshard-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    let mut data = DataDir::open(&path).unwrap();
    data.make_shards(1, 2).unwrap();
    data.commit(meta(2, 1)).unwrap();
    fs::create_dir_all(data.partitions().join("t-0")).unwrap();
    (path, data)
}

fn checkpoints(count: u8) -> Vec<Bytes> {
    (0..count).map(|shard| Bytes::from(vec![shard; 100])).collect()
}

#[test]
fn the_new_generation_takes_the_place_of_the_old() {
    let (path, mut data) = directory("switch");
    switch(&mut data, &meta(2, 1), &checkpoints(3)).unwrap();
    assert_eq!(data.meta(), Some(&meta(3, 2)));
    assert!(!data.generation(1).exists() && data.partitions().join("t-0").is_dir());
    for shard in 0..3 {
        assert_eq!(fs::read(data.shard(2, shard).join("checkpoint.1")).unwrap(), vec![shard as u8; 100]);
    }
    drop(data);
    assert_eq!(DataDir::open(&path).unwrap().meta(), Some(&meta(3, 2)));
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn before_the_rename_a_crash_changes_nothing() {
    let (path, data) = directory("before");
    // Half of a new generation, as a crash leaves it.
    data.make_shards(2, 1).unwrap();
    write_checkpoint(&data.shard(2, 0), b"half").unwrap();
    drop(data);
    let mut data = DataDir::open(&path).unwrap();
    assert_eq!(data.meta(), Some(&meta(2, 1)));
    switch(&mut data, &meta(2, 1), &checkpoints(4)).unwrap();
    assert_eq!(
        fs::read(data.shard(2, 0).join("checkpoint.1")).unwrap(),
        vec![0; 100],
        "nothing of the half is left"
    );
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn after_the_rename_a_crash_leaves_only_rubbish() {
    let (path, mut data) = directory("after");
    data.make_shards(2, 1).unwrap();
    data.commit(meta(1, 2)).unwrap();
    drop(data);
    let data = DataDir::open(&path).unwrap();
    assert_eq!(data.meta(), Some(&meta(1, 2)));
    assert!(data.generation(1).exists());
    data.remove_other_generations(2).unwrap();
    assert!(!data.generation(1).exists() && data.generation(2).exists());
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn damaged_checkpoints_stop_it_and_nothing_changes() {
    let (path, mut data) = directory("damaged");
    fs::write(data.shard(1, 0).join("checkpoint.0"), b"not a checkpoint").unwrap();
    assert!(reshard(&mut data, 3).is_err());
    assert_eq!(data.meta(), Some(&meta(2, 1)));
    assert!(!data.generation(2).exists());
    fs::remove_dir_all(path).unwrap();
}
