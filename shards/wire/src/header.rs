//! Request headers, and the head of an answer.

use crate::WireError;
use crate::api_key::{self, ApiKey};
use crate::primitives::Reader;

/// The header of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader<'a> {
    /// API key, known or not.
    pub api_key: i16,
    /// Version, served or not.
    pub api_version: i16,
    /// The client's name for the request.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<&'a str>,
    /// Where the body begins in the frame.
    pub body_offset: usize,
}

impl<'a> RequestHeader<'a> {
    /// Reads the header of a frame. Key, version and correlation id are read of any frame; the rest only where this
    /// broker knows the header's version, that is, for APIs it serves.
    pub fn parse(frame: &'a [u8]) -> Result<RequestHeader<'a>, WireError> {
        let mut reader = Reader::new(frame, 0);
        let (api_key, api_version, correlation_id) = (reader.i16()?, reader.i16()?, reader.i32()?);
        let mut header = RequestHeader {
            api_key,
            api_version,
            correlation_id,
            client_id: None,
            body_offset: reader.position(),
        };
        if let Some(known) = ApiKey::from_code(api_key)
            && api_key::serves(known, api_version)
        {
            header.client_id = reader.nullable_string(false)?;
            reader.skip_tags(api_key::header_versions(known, api_version).0 >= 2)?;
            header.body_offset = reader.position();
        }
        Ok(header)
    }
}

/// The head of an answer: room for the length, correlation id, tagged fields where the version has them.
pub fn response_head(api_key: ApiKey, version: i16, correlation_id: i32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9);
    write_response_head(&mut bytes, api_key, version, correlation_id);
    bytes
}

/// Appends the same.
pub fn write_response_head(bytes: &mut Vec<u8>, api_key: ApiKey, version: i16, correlation_id: i32) {
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&correlation_id.to_be_bytes());
    if api_key::header_versions(api_key, version).1 >= 1 {
        bytes.push(0);
    }
}

/// Writes the length in front of an answer of which `bytes` is the beginning and `more` bytes follow elsewhere.
pub fn finish_response(bytes: &mut [u8], more: usize) {
    let length = (bytes.len() - 4 + more) as u32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
}
