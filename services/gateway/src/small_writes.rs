//! A stream that sends small pieces as one: a head and a small body cost one plain `send` instead of a `writev`,
//! which takes the kernel longer than copying them does. Large bodies are never copied.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most heads with a small JSON body fit; filling and clearing this much of a cache is cheap.
const SMALL: usize = 2048;

/// See the module.
#[derive(Debug)]
pub(crate) struct SmallWrites<S>(pub(crate) S);

impl<S: AsyncRead + Unpin> AsyncRead for SmallWrites<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SmallWrites<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.0);
        if let [only] = slices {
            return stream.poll_write(cx, only);
        }
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total > SMALL {
            return stream.poll_write_vectored(cx, slices);
        }
        let mut together = [0; SMALL];
        let mut end = 0;
        for slice in slices {
            together[end..end + slice.len()].copy_from_slice(slice);
            end += slice.len();
        }
        stream.poll_write(cx, &together[..end])
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn pieces_arrive_in_order_whatever_their_size() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut received, _) = listener.accept().await.unwrap();
        let mut stream = SmallWrites(stream);
        for (first, second) in [(0, 1), (300, 43), (SMALL, 0), (SMALL, 1), (1, 20_000)] {
            let pieces = [vec![b'a'; first], vec![b'b'; second], vec![b'c']];
            let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let written = poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &slices))
                .await
                .unwrap();
            let mut got = vec![0; written];
            received.read_exact(&mut got).await.unwrap();
            assert_eq!(got, pieces.concat()[..written], "{first} {second}");
            assert!(written > 0);
        }
    }
}
