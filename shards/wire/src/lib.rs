//! Kafka's bytes and types: frames, headers, versions, error codes, record batches, the hot codecs of Produce and Fetch,
//! and every other API through one facade. Trusts no length, panics on no bytes. No I/O.
#![forbid(unsafe_code)]

pub mod api_key;
pub mod compact;
pub mod compression;
pub mod consumer_protocol;
pub mod crc;
pub mod error_code;
pub mod fetch;
pub mod frame;
pub mod hash;
pub mod header;
pub mod messages;
pub mod primitives;
pub mod produce;
pub mod recompress;
pub mod record_batch;
pub mod records;

/// Why bytes cannot be read, or a message cannot be written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the lengths in them say.
    #[error("the bytes end before what they announce")]
    Truncated,
    /// A negative length other than -1.
    #[error("a length is negative")]
    NegativeLength,
    /// A varint that does not fit its type.
    #[error("a varint is too long")]
    Varint,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// Null where the protocol has none.
    #[error("a field is null that must not be")]
    Null,
    /// Bytes behind the message.
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
    /// The API or version is not one we serve.
    #[error("{0} is not served")]
    NotServed(&'static str),
    /// The control-API codec's words.
    #[error("{0}")]
    Message(String),
}
