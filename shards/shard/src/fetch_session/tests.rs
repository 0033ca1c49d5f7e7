use super::*;
use uuid::Uuid;

fn key(partition: i32) -> SessionKey {
    SessionKey { topic_id: TopicId(Uuid::nil()), topic: "t".to_string(), partition }
}

fn wanted(fetch_offset: i64) -> Wanted {
    Wanted { fetch_offset, partition_bytes_max: 1, current_leader_epoch: -1, last_fetched_epoch: -1 }
}

fn request(id: i32, epoch: i32, partitions: Vec<(SessionKey, Wanted)>) -> SessionRequest {
    SessionRequest { id, epoch, by_ids: false, partitions, forgotten: vec![] }
}

fn begin(sessions: &mut FetchSessions, now: Now) -> i32 {
    sessions.begin(now, false, vec![(key(0), wanted(0), 5, 0), (key(1), wanted(0), 5, 0)])
}

#[test]
fn incremental_fetch_reads_everything_and_tells_only_changes() {
    let mut sessions = FetchSessions::new(10, 1);
    let id = begin(&mut sessions, Now::default());
    assert!(id > 0);
    let (usage, all) = sessions.enter(Now::default(), request(id, 1, vec![(key(1), wanted(5))])).unwrap();
    assert_eq!(usage, SessionUse::Incremental { id });
    assert_eq!(all, vec![(key(0), wanted(0)), (key(1), wanted(5))]);
    assert!(!sessions.tell(id, &key(0), ErrorCode::None, 5, 0, false));
    assert!(sessions.tell(id, &key(1), ErrorCode::None, 6, 0, false));
    assert!(!sessions.tell(id, &key(1), ErrorCode::None, 6, 0, false));
}

#[test]
fn a_partition_that_had_records_goes_last() {
    let mut sessions = FetchSessions::new(10, 1);
    let id = begin(&mut sessions, Now::default());
    assert!(sessions.tell(id, &key(0), ErrorCode::None, 5, 0, true));
    let (_, all) = sessions.enter(Now::default(), request(id, 1, vec![])).unwrap();
    assert_eq!(all.iter().map(|(k, _)| k.partition).collect::<Vec<_>>(), vec![1, 0]);
}

#[test]
fn wrong_epoch_unknown_session_and_forgotten_partitions() {
    let mut sessions = FetchSessions::new(10, 1);
    let id = begin(&mut sessions, Now::default());
    assert_eq!(
        sessions.enter(Now::default(), request(id, 2, vec![])).unwrap_err(),
        ErrorCode::InvalidFetchSessionEpoch
    );
    assert_eq!(
        sessions.enter(Now::default(), request(id.wrapping_add(1), 1, vec![])).unwrap_err(),
        ErrorCode::FetchSessionIdNotFound
    );
    let mut forget = request(id, 1, vec![]);
    forget.forgotten = vec![key(0)];
    let (_, all) = sessions.enter(Now::default(), forget).unwrap();
    assert_eq!(all, vec![(key(1), wanted(0))]);
}

#[test]
fn a_full_cache_gives_session_0_until_one_is_old() {
    let mut sessions = FetchSessions::new(1, 1);
    let first = begin(&mut sessions, Now::default());
    assert!(first > 0);
    assert_eq!(begin(&mut sessions, Now::default()), 0);
    let later = Now { monotonic_ns: 121_000_000_000, wall_ms: 0 };
    assert!(begin(&mut sessions, later) > 0);
    assert_eq!(sessions.len(), 1);
}

#[test]
fn final_epoch_ends_the_session() {
    let mut sessions = FetchSessions::new(1, 1);
    let id = begin(&mut sessions, Now::default());
    let (usage, _) = sessions.enter(Now::default(), request(id, -1, vec![])).unwrap();
    assert_eq!((usage, sessions.is_empty()), (SessionUse::Sessionless, true));
}
