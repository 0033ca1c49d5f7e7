//! The operations in flight on a ring. An operation owns everything the kernel may touch until its completion comes,
//! also when nobody wants the result any more. Never dropped before that.

use std::ffi::CString;
use std::net::TcpStream;
use std::rc::Rc;

use pelton_model::ConnectionId;

use crate::buffers::FrameBuffer;
use crate::files::{File, Key};
use crate::journal::JournalJob;
use crate::pieces::PieceRead;
use crate::segments::SegmentJob;
use crate::socket_name::SocketName;

/// One operation in flight.
pub enum Op {
    /// Accepting, many times.
    Accept,
    /// The same for other nodes.
    AcceptPeer,
    /// Connecting to another node.
    Connect { attempt: u64, socket: TcpStream, name: Box<SocketName> },
    /// Receiving into a pooled buffer of the kernel's choice (`None`) or into one of our own.
    Receive { connection: ConnectionId, buffer: Option<FrameBuffer> },
    /// Waiting until a connection takes bytes again.
    Writable { connection: ConnectionId },
    /// Moving a file range into a connection's pipe; the connection keeps the pipe until this is done.
    Fill { connection: ConnectionId, _file: Rc<File> },
    /// Reading a file range to be sent.
    ReadToSend { connection: ConnectionId, _file: Rc<File>, buffer: FrameBuffer },
    /// Waiting for someone to ring this shard's bell; its count lands here.
    Bell { count: Box<u64> },
    /// Opening a file of a partition, after `mkdirs` attempts to make its directory.
    Open { key: Key, path: CString, mkdirs: u8 },
    /// Making the directory of a file to be opened.
    Mkdir { key: Key, path: CString, _directory: CString, mkdirs: u8 },
    /// A step of a journal operation.
    Journal(JournalJob),
    /// Reading a piece of a segment for readers that catch up.
    Piece(PieceRead),
    /// A step of a segment operation.
    Segment(SegmentJob),
    /// Something whose result matters to nobody.
    Ignored,
}
