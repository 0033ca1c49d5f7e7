//! The length in front of each request and answer.

/// Why a frame's length cannot be right.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Shorter than any request header, or negative.
    #[error("a request of {0} bytes is not one of Kafka's (is this another protocol, or TLS?)")]
    TooShort(i32),
    /// Longer than allowed.
    #[error(
        "a request of {length} bytes is larger than the {cap} allowed (socket.request.max.bytes; 64 KiB before the first valid request)"
    )]
    TooLong {
        /// As announced.
        length: i32,
        /// The cap in force.
        cap: usize,
    },
}

/// Shortest request: API key, version, correlation id.
const REQUEST_BYTES_MIN: i32 = 8;

/// The length announced by `prefix`, held against `cap` bytes.
pub fn frame_length(prefix: [u8; 4], cap: usize) -> Result<usize, FrameError> {
    let length = i32::from_be_bytes(prefix);
    if length < REQUEST_BYTES_MIN {
        return Err(FrameError::TooShort(length));
    }
    if length as usize > cap {
        return Err(FrameError::TooLong { length, cap });
    }
    Ok(length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_bounded_on_both_sides() {
        assert_eq!(frame_length([0, 0, 0, 8], 8), Ok(8));
        assert_eq!(frame_length([0, 0, 0, 7], 8), Err(FrameError::TooShort(7)));
        assert_eq!(frame_length([0xff; 4], 8), Err(FrameError::TooShort(-1)));
        assert_eq!(frame_length([0, 0, 0, 9], 8), Err(FrameError::TooLong { length: 9, cap: 8 }));
        assert!(frame_length(*b"GET ", 100 << 20).is_err());
    }
}
