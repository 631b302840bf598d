//! What a person sees: progress on standard error, results on standard output. A line that counts the seconds is
//! rewritten in place on a terminal, and printed now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Elsewhere than on a terminal, nothing stays silent for longer than this.
const TICK: Duration = Duration::from_secs(8);
/// On a terminal.
const TERMINAL_TICK: Duration = Duration::from_millis(500);
/// The last line of a log is cut to what fits beside the rest.
const DETAIL_WIDTH: usize = 60;

/// One line of progress. A closed standard error is no reason to stop.
pub(crate) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// One line of the result.
pub(crate) fn print(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Seconds, or minutes and seconds.
#[must_use]
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

/// Tells that something is still going on.
pub(crate) struct Ticker {
    label: String,
    started: Instant,
    last: Instant,
    on_terminal: bool,
    drawn: bool,
}

impl Ticker {
    pub(crate) fn new(label: &str) -> Self {
        let now = Instant::now();
        Self {
            label: label.to_owned(),
            started: now,
            last: now,
            on_terminal: std::io::stderr().is_terminal(),
            drawn: false,
        }
    }

    /// Shows the time passed and `detail` if it is time to.
    pub(crate) fn tick(&mut self, detail: impl FnOnce() -> String) {
        let pause = if self.on_terminal { TERMINAL_TICK } else { TICK };
        if self.last.elapsed() < pause {
            return;
        }
        self.last = Instant::now();
        let detail: String = detail().chars().take(DETAIL_WIDTH).collect();
        let line = format!(
            "  {}: {} · {detail}",
            self.label,
            duration(self.started.elapsed())
        );
        if self.on_terminal {
            self.drawn = true;
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
        } else {
            say(line);
        }
    }

    /// Clears the line for another one.
    pub(crate) fn interrupt(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.interrupt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        assert_eq!(duration(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(duration(Duration::from_secs(59)), "59 s");
        assert_eq!(duration(Duration::from_secs(425)), "7 min 05 s");
    }
}
