//! Log lines leave through bounded buffers and one thread, so that a reader who stalls never stalls a request, and so
//! that under load hundreds of lines cost one wake-up and one write.

use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Threads share these out among themselves, so that busy cores do not wait for each other.
const BUFFERS: usize = 8;
/// Bytes that may wait in one buffer: a tenth of a second of a busy core's access records.
const BOUND: usize = 2 * 1024 * 1024;
/// A line that comes alone is written at once; what follows within this time is written together.
const GATHER: Duration = Duration::from_millis(20);

/// What the fmt layer and access records write to. The writing thread ends with its last clone.
#[derive(Clone)]
pub(crate) struct LogWriter(Arc<Open>);

struct Open(Arc<Shared>);

struct Shared {
    buffers: [Buffer; BUFFERS],
    lost: AtomicU64,
    /// The writing thread waits to be woken: whoever adds a line does it.
    is_asleep: AtomicBool,
    is_closed: AtomicBool,
    flushes: Mutex<Vec<SyncSender<()>>>,
    thread: OnceLock<Thread>,
}

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Buffer(Mutex<Vec<u8>>);

impl LogWriter {
    /// Begins to write to `out` in a thread of its own.
    pub(super) fn start(out: Box<dyn Write + Send>) -> (Self, Flush) {
        let shared = Arc::new(Shared {
            buffers: Default::default(),
            lost: AtomicU64::new(0),
            is_asleep: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            flushes: Mutex::default(),
            thread: OnceLock::new(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || of_thread.write_lines(out));
        let _ = shared.thread.set(thread.thread().clone());
        (Self(Arc::new(Open(Arc::clone(&shared)))), Flush(shared))
    }

    /// Lets `write` add one line to what this thread has waiting, unless there is too much of it. It is called with a
    /// lock held and must not log.
    pub(crate) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let shared = &self.0.0;
        let mut lines = lock(&shared.buffers[this_threads_buffer()].0);
        if lines.len() >= BOUND {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        write(&mut lines);
        drop(lines);
        // The writing thread falls asleep before it looks into the buffers for the last time, and the buffer's lock
        // orders that look and this one.
        if shared.is_asleep.load(Ordering::Relaxed) {
            shared.wake();
        }
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

/// One line in the making; it is added as a whole.
pub(crate) struct Line {
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
        self.writer.append(|lines| lines.extend_from_slice(&self.text));
    }
}

/// Waits for what was logged so far to be written.
pub(super) struct Flush(Arc<Shared>);

impl Flush {
    pub(super) fn flush(&self, within: Duration) {
        let (done, wait) = sync_channel(1);
        lock(&self.0.flushes).push(done);
        self.0.wake();
        // Late or never: the process ends all the same.
        let _ = wait.recv_timeout(within);
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn write_lines(&self, mut out: Box<dyn Write + Send>) {
        let mut batch = Vec::new();
        loop {
            let flushed = std::mem::take(&mut *lock(&self.flushes));
            let mut wrote = false;
            for buffer in &self.buffers {
                // The buffer's owner goes on with the room of the batch before.
                std::mem::swap(&mut *lock(&buffer.0), &mut batch);
                wrote |= !batch.is_empty();
                // Nobody is left to tell when standard output is gone.
                let _ = out.write_all(&batch);
                batch.clear();
            }
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                let _ = writeln!(
                    out,
                    "{{\"level\":\"WARN\",\"message\":\"log lines lost\",\"lost\":{lost}}}"
                );
            }
            if wrote || lost > 0 {
                let _ = out.flush();
            }
            let has_flushed = !flushed.is_empty();
            for done in flushed {
                let _ = done.try_send(());
            }
            if wrote {
                self.is_asleep.store(false, Ordering::Relaxed);
                // Only a flush ends this early.
                thread::park_timeout(GATHER);
            } else if self.is_closed.load(Ordering::Acquire) {
                return;
            } else if self.is_asleep.swap(true, Ordering::AcqRel) && !has_flushed {
                // A second look found nothing either.
                thread::park();
                self.is_asleep.store(false, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.0.wake();
    }
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogWriter")
    }
}

impl std::fmt::Debug for Flush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flush")
    }
}

fn this_threads_buffer() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<Option<usize>> = const { Cell::new(None) };
    }
    MINE.with(|mine| {
        mine.get().unwrap_or_else(|| {
            let next = NEXT.fetch_add(1, Ordering::Relaxed) % BUFFERS;
            mine.set(Some(next));
            next
        })
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Condvar;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(10);

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
            lock(&self.0.0).is_open = true;
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(lock(&self.0.0).text.clone()).unwrap()
        }
    }

    impl Write for Gate {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            let output = lock(&self.0.0);
            let mut output = self.0.1.wait_while(output, |output| !output.is_open).unwrap();
            output.text.extend_from_slice(text);
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
        // One batch is in the writer's hands and one waits: the third is lost.
        let filler = "x".repeat(1000);
        for n in 0..BOUND * 3 / 1000 {
            writeln!(writer.make_writer(), "line {n} {filler}").unwrap();
        }
        gate.open();
        flush.flush(PATIENCE);
        flush.flush(PATIENCE);
        assert!(gate.text().starts_with("line 0 "));
        assert!(gate.text().contains("log lines lost"));
    }

    #[test]
    fn every_line_of_every_thread_arrives_whole_and_in_its_threads_order() {
        let gate = Gate::default();
        gate.open();
        let (writer, flush) = LogWriter::start(Box::new(gate.clone()));
        std::thread::scope(|scope| {
            for name in 0..4 {
                let writer = &writer;
                scope.spawn(move || {
                    for number in 0..2000 {
                        writer
                            .append(|lines| lines.extend_from_slice(format!("{name} {number}\n").as_bytes()));
                    }
                });
            }
        });
        flush.flush(PATIENCE);
        let text = gate.text();
        for name in 0..4 {
            let prefix = format!("{name} ");
            let numbers = text.lines().filter_map(|line| line.strip_prefix(&prefix));
            assert!(numbers.map(|number| number.parse::<i32>().unwrap()).eq(0..2000));
        }
    }

    #[test]
    fn a_line_that_comes_alone_is_written_without_being_asked_for() {
        let gate = Gate::default();
        gate.open();
        let (writer, _flush) = LogWriter::start(Box::new(gate.clone()));
        for number in 1..=3 {
            writer.append(|lines| lines.extend_from_slice(b"alone\n"));
            let deadline = Instant::now() + PATIENCE;
            while gate.text().lines().count() < number {
                assert!(Instant::now() < deadline, "line {number} never came");
                thread::yield_now();
            }
        }
    }
}
