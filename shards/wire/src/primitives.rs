//! Kafka's primitive types, read from untrusted bytes and written. A length never decides an allocation: it is held
//! against what is left first.

use crate::WireError;
use uuid::Uuid;

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    whole: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// A reader over `whole`, at `position`.
    pub fn new(whole: &'a [u8], position: usize) -> Reader<'a> {
        Reader { whole, position: position.min(whole.len()) }
    }

    /// Where the next byte is read, from the start of the slice.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.whole.len() - self.position
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        if length > self.remaining() {
            return Err(WireError::Truncated);
        }
        let taken = &self.whole[self.position..self.position + length];
        self.position += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// int8.
    pub fn i8(&mut self) -> Result<i8, WireError> {
        Ok(i8::from_be_bytes(self.array()?))
    }
    /// int16.
    pub fn i16(&mut self) -> Result<i16, WireError> {
        Ok(i16::from_be_bytes(self.array()?))
    }
    /// int32.
    pub fn i32(&mut self) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.array()?))
    }
    /// int64.
    pub fn i64(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_be_bytes(self.array()?))
    }
    /// uuid.
    pub fn uuid(&mut self) -> Result<Uuid, WireError> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    /// Unsigned varint of at most 5 bytes.
    pub fn unsigned_varint(&mut self) -> Result<u32, WireError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| WireError::Varint);
            }
        }
        Err(WireError::Varint)
    }

    /// Zigzag varlong of at most 10 bytes.
    pub fn varlong(&mut self) -> Result<i64, WireError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            if shift == 63 && byte > 1 {
                return Err(WireError::Varint);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(WireError::Varint)
    }

    /// Zigzag varint of at most 5 bytes.
    pub fn varint(&mut self) -> Result<i32, WireError> {
        let value = self.unsigned_varint()?;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    /// Length of a nullable string, bytes or array: none = null.
    fn nullable_length(&mut self, flexible: bool, wide: bool) -> Result<Option<usize>, WireError> {
        if flexible {
            return Ok((self.unsigned_varint()? as usize).checked_sub(1));
        }
        let length = if wide { self.i32()? } else { i32::from(self.i16()?) };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| WireError::NegativeLength),
        }
    }

    /// A nullable string, compact when `flexible`.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<&'a str>, WireError> {
        match self.nullable_length(flexible, false)? {
            None => Ok(None),
            Some(length) => std::str::from_utf8(self.take(length)?).map(Some).map_err(|_| WireError::NotUtf8),
        }
    }

    /// A string, compact when `flexible`.
    pub fn string(&mut self, flexible: bool) -> Result<&'a str, WireError> {
        self.nullable_string(flexible)?.ok_or(WireError::Null)
    }

    /// Where nullable bytes lie in the slice.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<std::ops::Range<usize>>, WireError> {
        match self.nullable_length(flexible, true)? {
            None => Ok(None),
            Some(length) => {
                let start = self.position;
                self.take(length)?;
                Ok(Some(start..start + length))
            }
        }
    }

    /// The count of an array each of whose elements takes at least `element_bytes_min` bytes; null counts as none.
    pub fn array_count(&mut self, flexible: bool, element_bytes_min: usize) -> Result<usize, WireError> {
        let count = self.nullable_length(flexible, true)?.unwrap_or(0);
        if count > self.remaining() / element_bytes_min.max(1) {
            return Err(WireError::Truncated);
        }
        Ok(count)
    }

    /// Skips tagged fields, if there are any in this version.
    pub fn skip_tags(&mut self, flexible: bool) -> Result<(), WireError> {
        if !flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            self.unsigned_varint()?;
            let length = self.unsigned_varint()? as usize;
            self.take(length)?;
        }
        Ok(())
    }
}

/// Appends Kafka's primitive types.
pub struct Writer {
    /// What was written.
    pub bytes: Vec<u8>,
    flexible: bool,
}

impl Writer {
    /// A writer of the compact forms when `flexible`.
    pub fn new(flexible: bool, capacity: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(capacity), flexible }
    }
    /// The same that appends to `bytes`.
    pub fn reuse(flexible: bool, bytes: Vec<u8>) -> Writer {
        Writer { bytes, flexible }
    }
    /// int8.
    pub fn i8(&mut self, value: i8) {
        self.bytes.push(value as u8);
    }
    /// int16.
    pub fn i16(&mut self, value: i16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }
    /// int32.
    pub fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }
    /// int64.
    pub fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }
    /// uuid.
    pub fn uuid(&mut self, value: Uuid) {
        self.bytes.extend_from_slice(value.as_bytes());
    }
    /// Unsigned varint.
    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
    /// Length of bytes or of an array; none = null.
    pub fn length(&mut self, length: Option<usize>) {
        if self.flexible {
            self.unsigned_varint(length.map_or(0, |length| length as u32 + 1));
        } else {
            self.i32(length.map_or(-1, |length| length as i32));
        }
    }
    /// A nullable string.
    pub fn nullable_string(&mut self, value: Option<&str>) {
        if self.flexible {
            self.unsigned_varint(value.map_or(0, |value| value.len() as u32 + 1));
        } else {
            self.i16(value.map_or(-1, |value| value.len() as i16));
        }
        self.bytes.extend_from_slice(value.unwrap_or("").as_bytes());
    }
    /// A string.
    pub fn string(&mut self, value: &str) {
        self.nullable_string(Some(value));
    }
    /// No tagged fields.
    pub fn no_tags(&mut self) {
        if self.flexible {
            self.bytes.push(0);
        }
    }
    /// Tagged fields, in ascending order of their tags.
    pub fn tags(&mut self, fields: &[(u32, Vec<u8>)]) {
        if self.flexible {
            self.unsigned_varint(fields.len() as u32);
            for (tag, value) in fields {
                self.unsigned_varint(*tag);
                self.unsigned_varint(value.len() as u32);
                self.bytes.extend_from_slice(value);
            }
        }
    }
}
