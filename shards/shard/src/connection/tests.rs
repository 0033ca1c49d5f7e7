use super::*;

const NOW: Now = Now { monotonic_ns: 1, wall_ms: 1 };

fn connection() -> (Connection, ReceiveBudget) {
    (Connection::new(ConnectionId(1), "peer".to_string(), NOW), ReceiveBudget::new(1 << 20))
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn cut(connection: &mut Connection) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let NextFrame::Frame(frame) = connection.next_frame() {
        connection.reserve();
        frames.push(frame.to_vec());
    }
    frames
}

#[test]
fn frames_are_cut_wherever_the_bytes_break() {
    let (a, b) = (frame(b"first request"), frame(b"the second request"));
    let stream: Vec<u8> = [a, b].concat();
    for at in 1..stream.len() {
        let (mut connection, mut budget) = connection();
        let mut frames = Vec::new();
        let mut out = Vec::new();
        connection.receive_more(NOW, &mut budget, &mut out);
        connection.handle_received(NOW, Bytes::copy_from_slice(&stream[..at]));
        frames.extend(cut(&mut connection));
        out.clear();
        connection.receive_more(NOW, &mut budget, &mut out);
        let Some(Effect::Receive { mode, .. }) = out.pop() else { panic!("no receive at {at}") };
        let rest = match mode {
            ReceiveMode::Any => stream[at..].to_vec(),
            ReceiveMode::Frame { prefix, length } => {
                let end = at - prefix.len() + length;
                [&prefix[..], &stream[at..end]].concat()
            }
        };
        let behind = at.max(stream.len() - (stream.len() - at)) + rest.len();
        connection.handle_received(NOW, Bytes::from(rest));
        frames.extend(cut(&mut connection));
        if frames.len() < 2 {
            let second = frame(b"the second request");
            connection.handle_received(NOW, Bytes::from(second));
            frames.extend(cut(&mut connection));
        }
        assert_eq!(frames[0], b"first request", "cut at {at}, {behind}");
        assert_eq!(frames[1], b"the second request", "cut at {at}");
    }
}

#[test]
fn answers_leave_in_the_order_of_the_requests() {
    let (mut connection, _) = connection();
    let (a, b, c) = (connection.reserve(), connection.reserve(), connection.reserve());
    let mut out = Vec::new();
    let part = |byte| SendParts::One(SendPart::Bytes(Bytes::copy_from_slice(&[byte])));
    connection.fill(c.sequence, part(3), &mut out);
    connection.fill(b.sequence, Vec::new().into(), &mut out);
    assert!(out.is_empty(), "nothing may overtake the first");
    connection.fill(a.sequence, part(1), &mut out);
    let sent: Vec<u8> = out
        .iter()
        .map(|effect| match effect {
            Effect::Send { parts, .. } => match &parts[0] {
                SendPart::Bytes(bytes) => bytes[0],
                SendPart::File { .. } => panic!("no file here"),
            },
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent, [1, 3]);
}

#[test]
fn an_oversize_or_foreign_frame_breaks_the_connection() {
    for prefix in [[0, 2, 0, 0], [0xff, 0xff, 0xff, 0xff], *b"GET "] {
        let (mut connection, _) = connection();
        connection.handle_received(NOW, Bytes::copy_from_slice(&prefix));
        assert!(matches!(connection.next_frame(), NextFrame::Broken(_)), "{prefix:?}");
    }
    let (mut connection, _) = connection();
    connection.prove(1 << 20);
    connection.handle_received(NOW, Bytes::copy_from_slice(&[0, 2, 0, 0]));
    assert!(matches!(connection.next_frame(), NextFrame::None));
}

#[test]
fn too_many_requests_in_flight_stop_the_reading() {
    let (mut connection, mut budget) = connection();
    for _ in 0..REQUESTS_IN_FLIGHT_MAX {
        connection.reserve();
    }
    let mut out = Vec::new();
    connection.receive_more(NOW, &mut budget, &mut out);
    assert!(out.is_empty());
    connection.fill(0, Vec::new().into(), &mut out);
    connection.receive_more(NOW, &mut budget, &mut out);
    assert_eq!(out.len(), 1);
}

#[test]
fn large_requests_wait_for_memory() {
    let mut budget = ReceiveBudget::new(100);
    let (mut first, _) = connection();
    let (mut second, _) = connection();
    let mut out = Vec::new();
    for connection in [&mut first, &mut second] {
        connection.handle_received(NOW, Bytes::copy_from_slice(&[0, 0, 0, 90]));
    }
    assert!(first.receive_more(NOW, &mut budget, &mut out));
    assert!(!second.receive_more(NOW, &mut budget, &mut out));
    budget.give_back(first.take_reserved());
    assert!(second.receive_more(NOW, &mut budget, &mut out));
}

#[test]
fn a_begun_request_expires_before_an_idle_connection() {
    let (mut connection, mut budget) = connection();
    let mut out = Vec::new();
    let (idle, _) = connection.expiry(30_000, 600_000);
    connection.handle_received(NOW, Bytes::copy_from_slice(&[0, 0]));
    connection.receive_more(NOW, &mut budget, &mut out);
    let (begun, reason) = connection.expiry(30_000, 600_000);
    assert!(begun < idle && reason.contains("begun"));
}
