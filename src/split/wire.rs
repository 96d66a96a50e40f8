//! Messages as bytes: the only file that names bincode.
//!
//! A frame is `FLR` and the version of this format, the CRC-32 of the rest, and the rest. Decoding
//! allocates in proportion to the bytes at hand, whatever they claim, and takes all of them or none.

use bincode::config::{Config, Configuration, Fixint, LittleEndian};
use bincode::serde::{borrow_decode_from_slice, encode_into_std_write};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the frames and of the messages in them. Nodes of different versions do not talk.
pub const PROTOCOL: u8 = 1;

const MAGIC: [u8; 4] = [b'F', b'L', b'R', PROTOCOL];
/// Magic and checksum.
const HEADER: usize = 8;

/// Why bytes are no message of ours, or a message is not bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Too short, or of another format or version.
    #[error("no frame of protocol {PROTOCOL}: it has {got} bytes and starts with {start:02x?}")]
    NoFrame {
        /// Bytes at hand.
        got: usize,
        /// The first of them.
        start: Vec<u8>,
    },
    /// Damaged on the way.
    #[error("the frame has checksum {got:08x}, it says {expected:08x}")]
    Checksum {
        /// Of the bytes that came.
        got: u32,
        /// In the header.
        expected: u32,
    },
    /// A whole frame, of another message.
    #[error("the frame holds no such message: {0}")]
    Decode(String),
    /// The message is one, and then there is more.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// A message that has no bytes, such as a tensor of an unknown number type.
    #[error("the message cannot be written: {0}")]
    Encode(String),
}

/// A message as a frame.
///
/// # Errors
/// [`WireError::Encode`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut frame = MAGIC.to_vec();
    frame.extend([0; 4]);
    encode_into_std_write(message, &mut frame, FORMAT)
        .map_err(|error| WireError::Encode(error.to_string()))?;
    let checksum = crc32fast::hash(&frame[HEADER..]).to_le_bytes();
    frame[4..HEADER].copy_from_slice(&checksum);
    Ok(frame)
}

/// The message in a frame.
///
/// # Errors
/// Every [`WireError`] but [`WireError::Encode`].
pub fn decode<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> Result<T, WireError> {
    let no_frame = || WireError::NoFrame {
        got: frame.len(),
        start: frame[..frame.len().min(MAGIC.len())].to_vec(),
    };
    let (header, body) = frame.split_at_checked(HEADER).ok_or_else(no_frame)?;
    let (magic, checksum) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(no_frame());
    }
    let expected = u32::from_le_bytes(checksum.try_into().map_err(|_| no_frame())?);
    let got = crc32fast::hash(body);
    if got != expected {
        return Err(WireError::Checksum { got, expected });
    }
    let (message, read) = decode_body(body).map_err(WireError::Decode)?;
    match body.len() - read {
        0 => Ok(message),
        more => Err(WireError::Trailing(more)),
    }
}

/// Numbers of fixed length, so that a length bomb is as long as any other number.
const FORMAT: Configuration<LittleEndian, Fixint> =
    bincode::config::standard().with_fixed_int_encoding();

/// bincode makes room for what a length claims before it reads, up to a limit that is part of a type:
/// the smallest of a few that lets the bytes at hand through.
fn decode_body<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<(T, usize), String> {
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    fn within<'a, T: Deserialize<'a>>(
        body: &'a [u8],
        format: impl Config,
    ) -> Result<(T, usize), String> {
        borrow_decode_from_slice(body, format).map_err(|error| error.to_string())
    }
    match body.len() {
        length if length <= 4 * KIB => within(body, FORMAT.with_limit::<{ 16 * KIB }>()),
        length if length <= 256 * KIB => within(body, FORMAT.with_limit::<MIB>()),
        length if length <= 16 * MIB => within(body, FORMAT.with_limit::<{ 64 * MIB }>()),
        length if length <= 256 * MIB => within(body, FORMAT.with_limit::<{ 1024 * MIB }>()),
        _ => within(body, FORMAT.with_limit::<{ 64 * 1024 * MIB }>()),
    }
}
