//! Records as they come in on standard input: one a line, with or without a key in front, or one JSON object a line.
//! Turns bytes into records; sends nothing.

use serde_json::Value;

use super::record_format::base64;

/// A record to be sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InputRecord {
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Partition, if the record itself names one.
    pub partition: Option<i32>,
    /// Milliseconds since 1970, if the record itself says.
    pub timestamp_ms: Option<i64>,
}

impl InputRecord {
    /// About how many bytes it takes in a batch.
    pub fn size_bytes(&self) -> usize {
        let headers =
            self.headers.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len) + 10);
        self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
            + headers.sum::<usize>()
            + 40
    }
}

/// How lines become records.
#[derive(Clone, Debug, Default)]
pub struct InputFormat {
    /// Lines are JSON objects.
    pub json: bool,
    /// The key of every record.
    pub key: Option<Vec<u8>>,
    /// What stands between key and value.
    pub key_delimiter: Option<Vec<u8>>,
    /// An empty value is null.
    pub empty_is_null: bool,
    /// Headers of every record.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl InputFormat {
    /// The record of one line, without its newline. None for a blank JSON line.
    pub fn record(&self, line: &[u8]) -> Result<Option<InputRecord>, String> {
        if self.json {
            return self.json_record(line);
        }
        let split = self.key_delimiter.as_ref().and_then(|delimiter| {
            let at = line.windows(delimiter.len()).position(|window| window == &delimiter[..])?;
            Some((line[..at].to_vec(), &line[at + delimiter.len()..]))
        });
        let (key, value) = split.map_or((self.key.clone(), line), |(key, value)| (Some(key), value));
        let value = (!(self.empty_is_null && value.is_empty())).then(|| value.to_vec());
        Ok(Some(InputRecord { key, value, headers: self.headers.clone(), ..InputRecord::default() }))
    }

    fn json_record(&self, line: &[u8]) -> Result<Option<InputRecord>, String> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let object: Value = serde_json::from_slice(line).map_err(|error| format!("no JSON: {error}"))?;
        let object = object.as_object().ok_or("a line must be a JSON object")?;
        let known = [
            "key",
            "key_base64",
            "value",
            "value_base64",
            "headers",
            "partition",
            "timestamp",
            "topic",
            "offset",
        ];
        if let Some(name) = object.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("unknown field {name:?}.{}", crate::suggest::hint(name, known)));
        }
        let key = bytes_of(object, "key")?.or_else(|| self.key.clone());
        let mut headers = self.headers.clone();
        headers.extend(json_headers(object.get("headers"))?);
        let number = |name: &str| match object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or(format!("{name} must be a whole number")),
        };
        let partition = number("partition")?
            .map(|number| i32::try_from(number).map_err(|_| "partition is too large".to_string()))
            .transpose()?;
        let value = bytes_of(object, "value")?;
        Ok(Some(InputRecord { key, value, headers, partition, timestamp_ms: number("timestamp")? }))
    }
}

/// Bytes under `name` (text) or `name_base64`; objects and numbers are taken as their JSON.
fn bytes_of(object: &serde_json::Map<String, Value>, name: &str) -> Result<Option<Vec<u8>>, String> {
    if let Some(text) = object.get(&format!("{name}_base64")) {
        let bytes = text.as_str().and_then(base64::decode);
        return bytes.map(Some).ok_or(format!("{name}_base64 is not base64"));
    }
    Ok(match object.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone().into_bytes()),
        Some(other) => Some(other.to_string().into_bytes()),
    })
}

type Headers = Vec<(String, Option<Vec<u8>>)>;

/// Headers as `[{"key":…,"value":…}]`, as `consume` prints them, or as `{"key":"value"}`.
fn json_headers(value: Option<&Value>) -> Result<Headers, String> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(object)) => {
            object.keys().map(|key| Ok((key.clone(), bytes_of(object, key)?))).collect()
        }
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| {
                let object = item.as_object().ok_or("a header must be an object")?;
                let key = object.get("key").and_then(Value::as_str).ok_or("a header must have a key")?;
                Ok((key.to_string(), bytes_of(object, "value")?))
            })
            .collect(),
        Some(_) => Err("headers must be a list or an object".to_string()),
    }
}

/// Reads `key=value` of `-H`.
pub fn header(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_string(), value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_keys_when_told() {
        let plain = InputFormat::default();
        assert_eq!(plain.record(b"a:b").unwrap().unwrap().value.unwrap(), b"a:b");
        let keyed = InputFormat {
            key_delimiter: Some(b"::".to_vec()),
            empty_is_null: true,
            ..InputFormat::default()
        };
        let record = keyed.record(b"k::v::w").unwrap().unwrap();
        assert_eq!((record.key.unwrap(), record.value.unwrap()), (b"k".to_vec(), b"v::w".to_vec()));
        assert_eq!(keyed.record(b"k::").unwrap().unwrap().value, None);
        assert_eq!(keyed.record(b"no key").unwrap().unwrap().key, None);
    }

    #[test]
    fn json_lines_say_everything() {
        let json = InputFormat { json: true, ..InputFormat::default() };
        let record = json
            .record(br#"{"key":"k","value_base64":"/wA=","partition":2,"timestamp":5,"headers":[{"key":"h","value":null}]}"#)
            .unwrap()
            .unwrap();
        assert_eq!((record.key.unwrap(), record.value.unwrap()), (b"k".to_vec(), vec![0xff, 0]));
        assert_eq!((record.partition, record.timestamp_ms), (Some(2), Some(5)));
        assert_eq!(record.headers, vec![("h".to_string(), None)]);
        assert_eq!(json.record(br#"{"value":null}"#).unwrap().unwrap().value, None);
        assert_eq!(json.record(br#"{"value":{"a":1}}"#).unwrap().unwrap().value.unwrap(), br#"{"a":1}"#);
        assert_eq!(json.record(b"  ").unwrap(), None);
        for wrong in [
            "[]",
            "{",
            r#"{"partition":"x"}"#,
            r#"{"key_base64":"*"}"#,
            r#"{"headers":3}"#,
            r#"{"valu":"x"}"#,
        ] {
            assert!(json.record(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
