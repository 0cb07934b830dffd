//! A held connection has its place at a port for as long as it lives, whichever way it ends, and ends when its peer is
//! expelled.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::{
    admission::Place,
    trust::{Guard, Half},
};

/// What TLS reads and writes, and the place it has.
#[derive(Debug)]
pub struct Held<IO> {
    io: IO,
    place: Option<Place>,
    guard: Option<Guard>,
    end: Option<Pin<Box<Sleep>>>,
}

impl<IO> Held<IO> {
    pub(crate) const fn new(io: IO) -> Self {
        Self { io, place: None, guard: None, end: None }
    }

    /// Takes a place, and keeps it until the connection is dropped.
    pub fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Ends the connection after this time, whatever happens on it.
    pub fn end_after(&mut self, time: Duration) {
        self.end = Some(Box::pin(sleep(time)));
    }

    /// What TLS reads and writes.
    pub const fn get_ref(&self) -> &IO {
        &self.io
    }

    /// Ends the connection when its peer is expelled.
    pub(crate) fn guard(&mut self, guard: Guard) {
        self.guard = Some(guard);
    }

    /// Notes where the peer was called.
    #[cfg_attr(
        not(feature = "grpc"),
        expect(dead_code, reason = "only coordinators are asked for")
    )]
    pub(crate) fn dialled(&self, address: &str) {
        if let Some(guard) = &self.guard {
            guard.dialled(address);
        }
    }

    /// What came of reading or writing, unless the connection is to end. What waits is woken when it is.
    fn unless_over<T>(
        &mut self,
        half: Half,
        cx: &mut Context<'_>,
        came: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.guard.as_ref().is_some_and(Guard::is_cut) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if came.is_ready() {
            return came;
        }
        let cut = self.guard.as_mut().is_some_and(|guard| guard.poll_cut(half, cx).is_ready());
        if cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let mut end = self.end.as_mut().filter(|_| matches!(half, Half::Read));
        if end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        came
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Held<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.io).poll_read(cx, buf);
        self.unless_over(Half::Read, cx, came)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Held<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let came = Pin::new(&mut self.io).poll_write(cx, buf);
        self.unless_over(Half::Write, cx, came)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.io).poll_flush(cx);
        self.unless_over(Half::Write, cx, came)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let came = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.unless_over(Half::Write, cx, came)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
