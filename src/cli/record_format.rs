//! How a consumed record is printed: by a pattern with % verbs, or as one JSON object a line. Bytes go out as they are.

use base64::encode;
use pelton_wire::records::Record;
use serde_json::{Map, Value, json};

/// A piece of a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    KeyLength,
    Value,
    ValueLength,
    TimestampMs,
    Headers,
}

/// A way to print records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordFormat {
    /// One JSON object a line.
    Json,
    /// By a pattern.
    Pattern(Pattern),
}

/// A pattern that has been read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(Vec<Piece>);

/// What `consume --help` says about patterns.
pub const VERBS: &str = "Verbs: %t topic, %p partition, %o offset, %k key, %K its length, %v or %s value, %V or %S its \
                         length, %T timestamp in ms, %h headers, %% percent.\nEscapes: \\n \\t \\0 \\\\. A newline is \
                         added unless the pattern ends in \\n, \\t or \\0.";

/// Reads a pattern.
pub fn pattern(text: &str) -> Result<Pattern, String> {
    let mut pieces = Vec::new();
    let mut plain = Vec::new();
    let mut ended = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        ended = false;
        match c {
            '%' => {
                let piece = verb(chars.next())?;
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(piece);
            }
            '\\' => {
                let (byte, ends) = escape(chars.next())?;
                plain.push(byte);
                ended = ends;
            }
            c => plain.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if !ended {
        plain.push(b'\n');
    }
    pieces.push(Piece::Text(plain));
    pieces.retain(|piece| *piece != Piece::Text(Vec::new()));
    Ok(Pattern(pieces))
}

fn verb(c: Option<char>) -> Result<Piece, String> {
    Ok(match c {
        Some('t') => Piece::Topic,
        Some('p') => Piece::Partition,
        Some('o') => Piece::Offset,
        Some('k') => Piece::Key,
        Some('K') => Piece::KeyLength,
        Some('v' | 's') => Piece::Value,
        Some('V' | 'S') => Piece::ValueLength,
        Some('T' | 'd') => Piece::TimestampMs,
        Some('h') => Piece::Headers,
        Some('%') => Piece::Text(b"%".to_vec()),
        other => {
            let other = other.map(String::from).unwrap_or_default();
            return Err(format!("%{other} is no verb. {VERBS}"));
        }
    })
}

fn escape(c: Option<char>) -> Result<(u8, bool), String> {
    match c {
        Some('n') => Ok((b'\n', true)),
        Some('t') => Ok((b'\t', true)),
        Some('0') => Ok((0, true)),
        Some('r') => Ok((b'\r', false)),
        Some('\\') => Ok((b'\\', false)),
        _ => Err("after a backslash comes n, t, r, 0 or another backslash".to_string()),
    }
}

impl RecordFormat {
    /// Appends `record` to `out`.
    pub fn write(&self, topic: &str, partition: i32, record: &Record<'_>, out: &mut Vec<u8>) {
        match self {
            RecordFormat::Json => {
                out.extend_from_slice(object(topic, partition, record).to_string().as_bytes());
                out.push(b'\n');
            }
            RecordFormat::Pattern(Pattern(pieces)) => {
                for piece in pieces {
                    write_piece(piece, topic, partition, record, out);
                }
            }
        }
    }
}

fn write_piece(piece: &Piece, topic: &str, partition: i32, record: &Record<'_>, out: &mut Vec<u8>) {
    let length = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64).to_string();
    match piece {
        Piece::Text(text) => out.extend_from_slice(text),
        Piece::Topic => out.extend_from_slice(topic.as_bytes()),
        Piece::Partition => out.extend_from_slice(partition.to_string().as_bytes()),
        Piece::Offset => out.extend_from_slice(record.offset.to_string().as_bytes()),
        Piece::Key => out.extend_from_slice(record.key.unwrap_or_default()),
        Piece::KeyLength => out.extend_from_slice(length(record.key).as_bytes()),
        Piece::Value => out.extend_from_slice(record.value.unwrap_or_default()),
        Piece::ValueLength => out.extend_from_slice(length(record.value).as_bytes()),
        Piece::TimestampMs => out.extend_from_slice(record.timestamp_ms.to_string().as_bytes()),
        Piece::Headers => {
            for (index, header) in record.headers.iter().enumerate() {
                out.extend_from_slice(if index == 0 { b"" } else { b"," });
                out.extend_from_slice(header.key.as_bytes());
                out.push(b'=');
                out.extend_from_slice(header.value.unwrap_or_default());
            }
        }
    }
}

/// Text as a string under `name`; other bytes as base64 under `name_base64`; null as null under `name`.
fn put(into: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => into.insert(name.to_string(), Value::Null),
        Some((_, Ok(text))) => into.insert(name.to_string(), json!(text)),
        Some((bytes, Err(_))) => into.insert(format!("{name}_base64"), json!(encode(bytes))),
    };
}

fn object(topic: &str, partition: i32, record: &Record<'_>) -> Value {
    let mut object = Map::new();
    object.insert("topic".to_string(), json!(topic));
    object.insert("partition".to_string(), json!(partition));
    object.insert("offset".to_string(), json!(record.offset));
    object.insert("timestamp".to_string(), json!(record.timestamp_ms));
    put(&mut object, "key", record.key);
    put(&mut object, "value", record.value);
    let header = |header: &pelton_wire::records::RecordHeader<'_>| {
        let mut object = Map::new();
        object.insert("key".to_string(), json!(header.key));
        put(&mut object, "value", header.value);
        Value::Object(object)
    };
    object.insert("headers".to_string(), record.headers.iter().map(header).collect());
    Value::Object(object)
}

/// Base64, for bytes that are no text.
pub mod base64 {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    /// With padding (RFC 4648).
    pub fn encode(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for chunk in bytes.chunks(3) {
            let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            for place in 0..4 {
                let letter = ALPHABET[(group >> (18 - 6 * place)) as usize & 63];
                text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
            }
        }
        text
    }

    /// The bytes of [`encode`]; none if `text` is something else.
    pub fn decode(text: &str) -> Option<Vec<u8>> {
        let letters = text.trim_end_matches('=').as_bytes();
        if !text.len().is_multiple_of(4) || text.len() - letters.len() > 2 || letters.len() % 4 == 1 {
            return None;
        }
        let mut bytes = Vec::with_capacity(letters.len() * 3 / 4);
        let (mut group, mut bits) = (0u32, 0);
        for letter in letters {
            let value = ALPHABET.iter().position(|known| known == letter)? as u32;
            (group, bits) = (group << 6 | value, bits + 6);
            if bits >= 8 {
                bits -= 8;
                bytes.push((group >> bits) as u8);
                group &= (1 << bits) - 1;
            }
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_wire::records::RecordHeader;

    fn record() -> Record<'static> {
        let headers =
            vec![RecordHeader { key: "a", value: Some(b"1") }, RecordHeader { key: "b", value: None }];
        Record { offset: 7, timestamp_ms: 99, key: Some(b"k"), value: Some(&[0xff, 0]), headers }
    }

    fn printed(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        RecordFormat::Pattern(pattern(text).unwrap()).write("t", 3, &record(), &mut out);
        out
    }

    #[test]
    fn verbs_and_escapes() {
        assert_eq!(printed("%t %p %o %k %T %K %V %h %%"), b"t 3 7 k 99 1 2 a=1,b= %\n");
        assert_eq!(printed("%v\\0"), b"\xff\0\0");
        assert_eq!(printed("%o\\n"), b"7\n");
        assert_eq!(printed("\\\\"), b"\\\n");
        assert!(pattern("%x").unwrap_err().contains("%x is no verb"));
        assert!(pattern("%").is_err() && pattern("\\").is_err());
    }

    #[test]
    fn objects_keep_bytes_and_nulls_apart() {
        let object = object("t", 3, &record());
        assert_eq!(object["key"], json!("k"));
        assert_eq!(object["value_base64"], json!("/wA="));
        assert_eq!(object["headers"], json!([{ "key": "a", "value": "1" }, { "key": "b", "value": null }]));
    }

    #[test]
    fn base64_there_and_back() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(base64::decode(text).unwrap(), bytes.as_bytes());
        }
        for wrong in ["Z", "Zg=", "Zg", "Z===", "Zm9*", "===="] {
            assert_eq!(base64::decode(wrong), None, "{wrong}");
        }
    }
}
