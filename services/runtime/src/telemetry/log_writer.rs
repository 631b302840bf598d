//! Log lines leave through a bounded queue and one thread, so that a reader who stalls never stalls a request.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait: about 4 MiB of access records, a tenth of a second of a busy gateway.
const QUEUE: usize = 16_384;

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// What the fmt layer writes to.
#[derive(Clone)]
pub(super) struct LogWriter {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl LogWriter {
    /// Begins to write to `out` in a thread that lives as long as any writer.
    pub(super) fn start(out: Box<dyn Write + Send>) -> (Self, Flush) {
        let (queue, lines) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        thread::spawn(move || write_lines(out, &lines, &counted));
        (
            Self {
                queue: queue.clone(),
                lost,
            },
            Flush(queue),
        )
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line {
            text: Vec::with_capacity(256),
            writer: self.clone(),
        }
    }
}

/// One line in the making; it is sent as a whole.
pub(super) struct Line {
    text: Vec<u8>,
    writer: LogWriter,
}

impl Write for Line {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.text);
        if let Err(TrySendError::Full(_)) = self.writer.queue.try_send(Message::Line(line)) {
            self.writer.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits for what was logged so far to be written.
#[derive(Debug)]
pub(super) struct Flush(SyncSender<Message>);

impl Flush {
    pub(super) fn flush(&self, within: Duration) {
        let (done, wait) = sync_channel(1);
        if self.0.try_send(Message::Flush(done)).is_ok() {
            // Late or never: the process ends all the same.
            let _ = wait.recv_timeout(within);
        }
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

fn write_lines(mut out: Box<dyn Write + Send>, lines: &Receiver<Message>, lost: &AtomicU64) {
    let mut batch = Vec::new();
    // A batch is what has gathered while the last one was written: one system call under load, no delay otherwise.
    while let Ok(first) = lines.recv() {
        let mut flushed = Vec::new();
        for message in std::iter::once(first).chain(lines.try_iter().take(QUEUE)) {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::Flush(done) => flushed.push(done),
            }
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            batch.extend_from_slice(
                format!("{{\"level\":\"WARN\",\"message\":\"log lines lost\",\"lost\":{lost}}}\n").as_bytes(),
            );
        }
        // Nobody is left to tell when standard output is gone.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
        batch.clear();
        for done in flushed {
            let _ = done.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Condvar, Mutex, PoisonError};

    /// An output that stands still until it is opened.
    #[derive(Clone, Default)]
    struct Gate(Arc<(Mutex<Output>, Condvar)>);

    #[derive(Default)]
    struct Output {
        is_open: bool,
        text: Vec<u8>,
    }

    impl Gate {
        fn open(&self) {
            self.0.0.lock().unwrap().is_open = true;
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().text.clone()).unwrap()
        }
    }

    impl Write for Gate {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            let state = self.0.0.lock().unwrap();
            let mut state = self
                .0
                .1
                .wait_while(state, |output| !output.is_open)
                .unwrap_or_else(PoisonError::into_inner);
            state.text.extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_costs_lines_but_never_time_and_the_loss_is_said() {
        let gate = Gate::default();
        let (writer, flush) = LogWriter::start(Box::new(gate.clone()));
        // One batch is in the writer's hands and one waits in the queue: the third is lost.
        for n in 0..QUEUE * 3 {
            writeln!(writer.make_writer(), "line {n}").unwrap();
        }
        gate.open();
        flush.flush(Duration::from_secs(10));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !gate.text().contains("log lines lost") {
            assert!(std::time::Instant::now() < deadline, "the loss was never said");
            writeln!(writer.make_writer(), "more").unwrap();
            flush.flush(Duration::from_secs(10));
        }
        assert!(gate.text().starts_with("line 0\nline 1\n"));
    }
}
