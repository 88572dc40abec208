//! The TCP connection of one WebSocket, which is ours from the handshake on. No buffer waits in it for what may come: a
//! socket is idle nearly always, so what comes is read into one piece of memory that all of a thread share.
//!
//! Not here: what the bytes mean (`wire`), when there are some to write (`handover`).

use std::cell::RefCell;
use std::io::{ErrorKind, Result};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;

/// What is read at a time.
const READ_BYTES: usize = 16_384;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Polled by the one task that drives the socket, and cut from outside.
pub(super) struct Line(TcpStream);

/// What every connection is accepted with. The small send buffer makes a backlog show here instead of in the kernel.
pub(super) fn settle(stream: &TcpStream) {
    // A socket that refuses an option is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_send_buffer_size(65_536);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(Duration::from_secs(30)));
}

impl Line {
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// What has come, in memory of just its size; nothing at the end.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            let read = SCRATCH.with_borrow_mut(|scratch| {
                self.0.try_read(scratch).map(|len| Bytes::copy_from_slice(&scratch[..len]))
            });
            match read {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// How many of the bytes were taken.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Ends the connection whatever the peer does: it sees a reset, and so do those who read or write here.
    pub(super) fn cut(&self) {
        let socket = socket2::SockRef::from(&self.0);
        // Errors mean that it is gone already, which is what is wanted.
        let _ = socket.set_linger(Some(Duration::ZERO));
        let _ = socket.shutdown(std::net::Shutdown::Both);
    }
}
