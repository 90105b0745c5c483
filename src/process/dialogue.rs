//! A child that is talked to as long as it lives: lines to its standard input, lines from its output.
//!
//! Nothing here waits for the child but [`Dialogue::close`], which has a deadline: what is sent goes
//! through a thread, what it says is heard on another.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Sender, unbounded};
use nix::sys::signal::Signal;

use super::running::{Running, Stop};
use super::{cannot_start, to_process};
use crate::cancel::{Cancel, Urgency};
use crate::command::{CommandLine, StopSignal};
use crate::model::Exit;

/// A line that is longer comes in pieces.
const LONGEST: u64 = 1 << 20;

/// Hears each line of an output, without its end, and `None` when there are no more.
pub type Listener = Box<dyn FnMut(Option<&str>) + Send>;

/// A child that lives, in a process group of its own.
pub struct Dialogue {
    child: Mutex<Option<Child>>,
    /// `None` when nothing more is to be sent.
    lines: Mutex<Option<Sender<String>>>,
    is_over: Arc<AtomicBool>,
}

impl Dialogue {
    /// Starts `command` by `shell`; `heard` gets the lines of its output, `complaints` those of its standard
    /// error.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        command: &CommandLine,
        shell: &str,
        mut heard: Listener,
        mut complaints: Listener,
    ) -> io::Result<Dialogue> {
        let mut process = to_process(command, shell);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.spawn().map_err(|error| cannot_start(&error, command, shell))?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (lines, queue) = unbounded::<String>();
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let over = Arc::clone(&is_over);
        let threads = || -> io::Result<()> {
            spawn(move || {
                let Some(mut stdin) = stdin else { return };
                for line in queue {
                    // A child that does not listen has ended or is about to.
                    let _ = stdin.write_all(line.as_bytes()).and_then(|()| stdin.write_all(b"\n"));
                }
            })?;
            spawn(move || {
                listen(stdout, &mut |line| {
                    if line.is_none() {
                        over.store(true, Ordering::SeqCst);
                    }
                    heard(line);
                });
            })?;
            spawn(move || listen(stderr, &mut complaints))
        };
        if let Err(error) = threads() {
            let never = Cancel::new();
            let stop = Stop { signals: StopSignal::USUAL, marker: None, cancel: &never };
            Running::new(&mut child, stop).kill();
            return Err(error);
        }
        let (child, lines) = (Mutex::new(Some(child)), Mutex::new(Some(lines)));
        Ok(Dialogue { child, lines, is_over })
    }

    /// Sends a line. That the child has ended shows at its output.
    pub fn send(&self, line: String) {
        if let Some(lines) = &*self.lines.lock().unwrap_or_else(PoisonError::into_inner) {
            // The writer lives as long as we hold the sender.
            let _ = lines.send(line);
        }
    }

    /// Whether its output has come to an end: it will say nothing more.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Closes its standard input, waits until `deadline` for it to end by itself, then ends its group. Gives
    /// how it ended; `None` the second time.
    pub fn close(&self, deadline: Duration, cancel: &Cancel) -> Option<Exit> {
        let mut child = self.hang_up()?;
        let mut running = Running::new(&mut child, Stop { signals: StopSignal::USUAL, marker: None, cancel });
        let cancelled = cancel.beyond(Urgency::None);
        let exit = cancelled.and_then(|cancelled| running.wait(deadline, cancelled.as_deref()));
        if exit.is_err() {
            // Whatever goes wrong here, no process stays behind.
            running.kill();
        }
        let exit = exit.unwrap_or(Exit::Signal(Signal::SIGKILL as i32));
        running.sweep(exit);
        Some(exit)
    }

    /// Closes its standard input and waits until `deadline` for it to end by itself; `None` if it has not:
    /// then it goes on without us.
    pub fn leave(&self, deadline: Duration) -> Option<Exit> {
        let mut child = self.hang_up()?;
        let never = Cancel::new();
        let stop = Stop { signals: StopSignal::USUAL, marker: None, cancel: &never };
        let mut running = Running::new(&mut child, stop);
        match running.wait_only(deadline) {
            Ok(Some(exit)) => {
                running.sweep(exit);
                Some(exit)
            }
            Ok(None) => None,
            Err(error) => {
                log::debug!("cannot wait for a child: {error}");
                None
            }
        }
    }

    /// Closes its standard input. Gives the child, once.
    fn hang_up(&self) -> Option<Child> {
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.child.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        // It has no more to say to anybody.
        let _ = self.close(Duration::ZERO, &Cancel::new());
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("dialogue".into()).spawn(work).map(drop)
}

fn listen(stream: Option<impl Read>, hear: &mut dyn FnMut(Option<&str>)) {
    let mut reader = stream.map(BufReader::new);
    let mut line = Vec::new();
    // Whatever ends the stream, there is no more of it.
    while let Some(reader) = &mut reader
        && reader.by_ref().take(LONGEST).read_until(b'\n', &mut line).is_ok_and(|count| count > 0)
    {
        hear(Some(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r'])));
        line.clear();
    }
    hear(None);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crossbeam::channel::unbounded;

    use super::*;

    fn start(text: &str) -> (Dialogue, crossbeam::channel::Receiver<Option<String>>) {
        let (sender, heard) = unbounded();
        let hear = Box::new(move |line: Option<&str>| drop(sender.send(line.map(str::to_owned))));
        let dialogue = Dialogue::start(&CommandLine::shell(text), "/bin/sh", hear, Box::new(|_| {}));
        (dialogue.unwrap(), heard)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn lines_go_there_and_come_back_until_the_input_is_closed() {
        let (dialogue, heard) = start("while read -r line; do echo \"got $line\"; done; echo bye");
        dialogue.send("one".into());
        assert_eq!(heard.recv_timeout(LONG).unwrap().as_deref(), Some("got one"));
        assert!(!dialogue.is_over());
        assert_eq!(dialogue.close(LONG, &Cancel::new()), Some(Exit::Code(0)));
        assert_eq!(heard.recv_timeout(LONG).unwrap().as_deref(), Some("bye"));
        assert_eq!(heard.recv_timeout(LONG).unwrap(), None);
        assert!(dialogue.is_over());
    }

    #[test]
    fn a_child_that_needs_longer_goes_on_alone() {
        let directory = tempfile::tempdir().unwrap();
        let done = directory.path().join("done");
        let (dialogue, _heard) = start(&format!("cat > /dev/null; sleep 0.5; : > '{}'", done.display()));
        assert_eq!(dialogue.leave(Duration::from_millis(50)), None);
        drop(dialogue);
        let until = Instant::now() + LONG;
        while !done.exists() {
            assert!(Instant::now() < until, "it was ended");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_child_that_does_not_listen_blocks_nobody_and_is_ended() {
        let (dialogue, heard) = start("sleep 4711 & echo started; sleep 4712");
        assert_eq!(heard.recv_timeout(LONG).unwrap().as_deref(), Some("started"));
        for _ in 0..100 {
            dialogue.send("x".repeat(10_000));
        }
        let began = Instant::now();
        assert_eq!(dialogue.close(Duration::from_millis(100), &Cancel::new()), Some(Exit::TimedOut));
        assert!(began.elapsed() < LONG);
        assert_eq!(heard.recv_timeout(LONG).unwrap(), None, "its whole group is gone");
    }
}
