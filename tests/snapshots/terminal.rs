//! What a person sees: runs on a pseudo-terminal, whose screen is emulated.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use wait_timeout::ChildExt;

use crate::case::{Case, check};

const ROWS: u16 = 40;
const DEADLINE: Duration = Duration::from_secs(60);

/// A program on a terminal.
struct Terminal<'a> {
    case: &'a Case,
    child: Child,
    keyboard: File,
    parser: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

/// Where standard output goes.
enum Stdout {
    Terminal,
    File,
}

impl Terminal<'_> {
    /// Starts a run in three sandboxes on a terminal of this width, which can send signals.
    fn start(case: &Case, columns: u16, stdout: Stdout) -> Terminal<'_> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let window = Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, window).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let device = File::from(ioctl_tiocgptpeer(&master, flags).unwrap());
        let mut command = case.command("setsid");
        // These tests may have been started by a shell in the background, and ignore SIGINT.
        command.args(["--ctty", "env", "--default-signal=INT", env!("CARGO_BIN_EXE_offload")]);
        command.args(["run", "--parallel", "3"]);
        command
            .stdin(Stdio::from(device.try_clone().unwrap()))
            .stderr(Stdio::from(device.try_clone().unwrap()));
        command.stdout(match stdout {
            Stdout::Terminal => Stdio::from(device),
            Stdout::File => Stdio::from(File::create(case.path().join("stdout")).unwrap()),
        });
        let child = command.spawn().unwrap();
        drop(command);
        let parser = Arc::new(Mutex::new(vt100::Parser::new(size(ROWS), size(columns), 0)));
        let mut screen = File::from(master);
        let keyboard = screen.try_clone().unwrap();
        let written = Arc::clone(&parser);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // At the end of all writers the terminal gives an error.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                written.lock().unwrap().process(&bytes[..count]);
            }
        });
        Terminal { case, child, keyboard, parser, reader: Some(reader) }
    }

    /// Waits until the screen shows `text`.
    #[track_caller]
    fn wait_for(&self, text: &str) {
        let end = Instant::now() + DEADLINE;
        while !self.picture().contains(text) {
            assert!(Instant::now() < end, "no `{text}` in:\n{}", self.picture());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end with this exit code.
    #[track_caller]
    fn end(&mut self, code: i32) {
        let status = self.child.wait_timeout(DEADLINE).unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(code), "{}", self.picture());
        self.reader.take().unwrap().join().unwrap();
    }

    /// The screen as text, colors as tags.
    fn picture(&self) -> String {
        let parser = self.parser.lock().unwrap();
        let screen = parser.screen();
        let (rows, columns) = screen.size();
        let mut picture = String::new();
        for row in 0..rows.get() {
            let mut line = String::new();
            let mut style = "";
            for column in 0..columns.get() {
                let cell = screen.cell(row, column).unwrap();
                let now = style_of(cell);
                if now != style {
                    line += &tags(style, now);
                    style = now;
                }
                line += if cell.has_contents() { cell.contents() } else { " " };
            }
            line += &tags(style, "");
            picture += line.trim_end();
            picture += if screen.row_wrapped(row) { "↩\n" } else { "\n" };
        }
        self.case.settled(&format!("{}\n", picture.trim_end()))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // A test that failed must not leave its run behind.
        if self.child.try_wait().unwrap().is_none() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = self.child.wait_timeout(Duration::from_secs(10));
        }
    }
}

fn size(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap()
}

fn style_of(cell: &vt100::Cell) -> &'static str {
    match cell.fgcolor() {
        _ if !cell.has_contents() => "",
        vt100::Color::Idx(1) => "red",
        vt100::Color::Idx(2) => "green",
        vt100::Color::Idx(3) => "yellow",
        _ if cell.dim() => "dim",
        _ => "",
    }
}

fn tags(old: &str, new: &str) -> String {
    let close = if old.is_empty() { String::new() } else { format!("</{old}>") };
    let open = if new.is_empty() { String::new() } else { format!("<{new}>") };
    close + &open
}

/// A run that waits in the middle.
fn held() -> Case {
    Case::tests(&["fail 1", "leak 1", "hold 1"], "[groups.all]\nschedule_individual = true", "")
        .env("TERM", "xterm-256color")
}

#[test]
fn the_bar_fits_the_terminal_and_lines_stay_whole_above_it() {
    for columns in [60, 120] {
        let case = held();
        let mut terminal = Terminal::start(&case, columns, Stdout::Terminal);
        terminal.wait_for("left processes behind");
        terminal.wait_for("2/3 tests");
        terminal.wait_for(", 1 running");
        check(&format!("terminal/running-{columns}"), &terminal.picture());
        File::create(case.path().join("go")).unwrap();
        terminal.end(1);
        check(&format!("terminal/done-{columns}"), &terminal.picture());
    }
}

#[test]
fn an_interrupt_leaves_no_trace_of_the_bar() {
    for columns in [60, 120] {
        let case = held();
        let mut terminal = Terminal::start(&case, columns, Stdout::Terminal);
        terminal.wait_for("left processes behind");
        terminal.wait_for(", 1 running");
        terminal.keyboard.write_all(b"\x03").unwrap();
        terminal.end(130);
        check(&format!("terminal/interrupted-{columns}"), &terminal.picture());
    }
}

#[test]
fn each_stream_is_judged_by_itself() {
    let case = held().file("go", "");
    let mut terminal = Terminal::start(&case, 80, Stdout::File);
    terminal.end(1);
    let stdout = std::fs::read_to_string(case.path().join("stdout")).unwrap();
    assert!(!stdout.contains('\u{1b}') && stdout.contains("FAILED fail 1"), "{stdout}");
    check("terminal/stderr-only", &terminal.picture());
}

#[test]
fn a_ci_log_is_plain_even_on_a_terminal_and_no_color_keeps_the_bar() {
    let case = held().env("CI", "true").file("go", "");
    let mut terminal = Terminal::start(&case, 80, Stdout::Terminal);
    terminal.end(1);
    let picture = terminal.picture();
    assert!(!picture.contains("<red>") && picture.contains("FAILED fail 1"), "{picture}");

    let case = held().env("NO_COLOR", "1");
    let mut terminal = Terminal::start(&case, 80, Stdout::Terminal);
    terminal.wait_for("[====");
    terminal.wait_for("2/3 tests, 1 failed, 1 running");
    File::create(case.path().join("go")).unwrap();
    terminal.end(1);
    assert!(!terminal.picture().contains("<red>"), "{}", terminal.picture());
}
