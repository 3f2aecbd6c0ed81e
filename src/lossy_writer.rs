//! Lines for a stream whose reader may be slow or gone: a thread of its own writes them, so that a caller never waits
//! and never fails. Lines that do not fit the queue, or that the stream refuses, are dropped and counted. The count is
//! written as a line once the stream takes lines again.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use postrider_domain::limits;

/// The side of the callers. Clones share the queue. Each `write` is taken or dropped as a whole.
#[derive(Clone, Debug)]
pub struct LossyWriter {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Lines that were lost and not yet reported.
    dropped: u64,
    /// Lines that were lost, reported or not.
    dropped_in_all: u64,
    /// The thread has taken bytes that are not written yet.
    is_writing: bool,
}

/// How long the thread waits when another process has made the stream non-blocking and nobody reads it.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

impl LossyWriter {
    /// Starts the thread. `report` renders the line that says how many lines were dropped.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        mut out: impl Write + Send + 'static,
        report: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let of_thread = Arc::clone(&queue);
        thread::Builder::new().name("lines".to_owned()).spawn(move || of_thread.write_all_to(&mut out, report))?;
        Ok(Self { queue })
    }

    /// As [`LossyWriter::start`], on a copy of a standard stream. The copy matters: the lock of `std::io::stderr` would
    /// be held while a write blocks, and everybody else who prints would wait for it.
    ///
    /// # Errors
    /// When the stream cannot be copied or the thread cannot be started.
    pub fn on(stream: impl AsFd, report: impl Fn(u64) -> String + Send + 'static) -> io::Result<Self> {
        Self::start(File::from(stream.as_fd().try_clone_to_owned()?), report)
    }

    /// The lines that were dropped since the start.
    pub fn lines_dropped(&self) -> u64 {
        self.queue.lock().dropped_in_all
    }

    /// Waits until everything is written, but no longer than this.
    pub fn flush_within(&self, longest: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        drop(self.queue.changed.wait_timeout_while(self.queue.lock(), longest, is_busy));
    }
}

impl State {
    fn drop_lines(&mut self, lines: u64) {
        self.dropped += lines;
        self.dropped_in_all += lines;
    }
}

impl Write for LossyWriter {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut state = self.queue.lock();
        if state.waiting.len() + lines.len() <= limits::LINE_QUEUE_BYTES {
            state.waiting.extend_from_slice(lines);
            // While it writes, the thread looks at the queue again by itself.
            let is_idle = !state.is_writing;
            drop(state);
            if is_idle {
                self.queue.changed.notify_all();
            }
        } else {
            state.drop_lines(lines_in(lines));
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    /// No holder of the lock runs foreign code, so a poisoned state is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never returns: the thread ends with the process.
    fn write_all_to(&self, out: &mut impl Write, report: impl Fn(u64) -> String) {
        let (mut batch, mut is_mid_line) = (Vec::new(), false);
        loop {
            self.take(&mut batch);
            // The end of a line that the stream took in part.
            let is_ready = !is_mid_line || write_what_goes(out, b"\n").is_empty();
            let rest = if is_ready { write_what_goes(out, &batch) } else { &batch };
            let mut lost = lines_in(rest);
            self.lock().dropped_in_all += lost;
            is_mid_line = ends_mid_line(&batch[..batch.len() - rest.len()], is_mid_line);
            let dropped = std::mem::take(&mut self.lock().dropped);
            if lost == 0 && dropped > 0 {
                let report = report(dropped) + "\n";
                let rest = write_what_goes(out, report.as_bytes());
                is_mid_line = ends_mid_line(&report.as_bytes()[..report.len() - rest.len()], is_mid_line);
                lost = if rest.is_empty() { 0 } else { dropped };
            } else {
                lost += dropped;
            }
            batch.clear();
            batch.shrink_to(limits::LINE_QUEUE_BYTES / 64);
            let mut state = self.lock();
            state.dropped += lost;
            state.is_writing = false;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits for lines and swaps them into the empty `batch`.
    fn take(&self, batch: &mut Vec<u8>) {
        let is_empty = |state: &mut State| state.waiting.is_empty();
        let mut state = self.changed.wait_while(self.lock(), is_empty).unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(batch, &mut state.waiting);
        state.is_writing = true;
    }
}

/// Writes until the stream fails. Returns the bytes that are left.
fn write_what_goes<'b>(out: &mut impl Write, bytes: &'b [u8]) -> &'b [u8] {
    let mut rest = bytes;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => break,
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_INTERVAL),
            Err(_) => break,
        }
    }
    rest
}

fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn ends_mid_line(written: &[u8], was_mid_line: bool) -> bool {
    written.last().map_or(was_mid_line, |byte| *byte != b'\n')
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A stream that does with each write what the test says next, and keeps what it took.
    struct Scripted {
        script: mpsc::Receiver<io::Result<usize>>,
        asked: mpsc::Sender<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.asked.send(()).unwrap();
            let take = self.script.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.taken.lock().unwrap().extend_from_slice(&bytes[..take]);
            Ok(take)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Bench {
        writer: LossyWriter,
        /// Dropped: every write succeeds.
        script: Option<mpsc::Sender<io::Result<usize>>>,
        asked: mpsc::Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Bench {
        fn new() -> Self {
            let ((script, orders), (ask, asked)) = (mpsc::channel(), mpsc::channel());
            let taken = Arc::new(Mutex::new(Vec::new()));
            let out = Scripted { script: orders, asked: ask, taken: Arc::clone(&taken) };
            let writer = LossyWriter::start(out, |lines| format!("{lines} dropped")).unwrap();
            Self { writer, script: Some(script), asked, taken }
        }

        fn line(&mut self, line: &str) {
            self.writer.write_all(format!("{line}\n").as_bytes()).unwrap();
        }

        /// Waits until the thread is in a write.
        fn until_writing(&self) {
            self.asked.recv_timeout(LONG).unwrap();
        }

        fn order(&self, result: io::Result<usize>) {
            self.script.as_ref().unwrap().send(result).unwrap();
        }

        /// The text of the stream once everything is written.
        fn text(mut self) -> String {
            self.script = None;
            self.writer.flush_within(LONG);
            String::from_utf8(self.taken.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn a_stalled_stream_holds_up_nobody_and_drops_are_counted() {
        let mut bench = Bench::new();
        bench.line("first");
        bench.until_writing();
        let long = "x".repeat(limits::LINE_QUEUE_BYTES - 1);
        bench.line(&long); // exactly the queue
        bench.line("lost");
        bench.line("lost too");
        assert_eq!(bench.text(), format!("first\n2 dropped\n{long}\n"));
    }

    #[test]
    fn one_byte_over_the_queue_is_dropped() {
        let mut bench = Bench::new();
        bench.line("first");
        bench.until_writing();
        bench.line(&"x".repeat(limits::LINE_QUEUE_BYTES));
        assert_eq!(bench.text(), "first\n1 dropped\n");
    }

    #[test]
    fn lines_that_a_stream_refuses_are_counted_until_it_takes_one() {
        let mut bench = Bench::new();
        bench.line("begun");
        bench.until_writing();
        bench.order(Ok(3));
        bench.until_writing();
        bench.order(Err(io::ErrorKind::StorageFull.into()));
        bench.writer.flush_within(LONG);
        bench.line("whole");
        bench.until_writing();
        bench.order(Err(io::ErrorKind::BrokenPipe.into()));
        bench.writer.flush_within(LONG);
        bench.line("heard");
        assert_eq!(bench.text(), "beg\nheard\n2 dropped\n");
    }

    #[test]
    fn a_count_that_cannot_be_written_is_kept() {
        let mut bench = Bench::new();
        bench.line("lost");
        bench.until_writing();
        bench.order(Err(io::ErrorKind::BrokenPipe.into()));
        bench.writer.flush_within(LONG);
        bench.line("heard");
        bench.until_writing();
        bench.order(Ok(usize::MAX));
        bench.until_writing(); // the report
        bench.order(Err(io::ErrorKind::BrokenPipe.into()));
        bench.writer.flush_within(LONG);
        bench.line("again");
        assert_eq!(bench.text(), "heard\nagain\n1 dropped\n");
    }

    #[test]
    fn a_signal_or_a_non_blocking_stream_loses_nothing() {
        let mut bench = Bench::new();
        bench.line("line");
        for kind in [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock] {
            bench.until_writing();
            bench.order(Err(kind.into()));
        }
        assert_eq!(bench.text(), "line\n");
    }
}
