//! The trailer that a sandbox prints after everything that a command printed itself: how it ended, and files. Its
//! lines have a token nobody can guess, by which they differ from what a process that was left behind prints meanwhile:
//!
//! ```text
//! TOKEN exit 0
//! TOKEN file 0
//! TOKEN:…base64, or hexadecimal where the sandbox has no `base64`…
//! TOKEN end
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem::{FinderRev, rfind};

const BLOCK: u64 = 64 * 1024;

/// What a sandbox reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The exit status of the command, as a shell gives it.
    pub status: i32,
    /// The numbers of the files that exist.
    pub files: Vec<usize>,
}

/// The script that prints the trailer of a command whose status is in `$s`: it names the files that exist, or with
/// `content` prints them.
pub(super) fn text(token: &str, files: &[&str], content: bool) -> String {
    let mut text = format!("printf '\\n%s exit %s\\n' {token} \"$s\"; ");
    for (number, file) in files.iter().enumerate() {
        let file = shell_words::quote(file);
        text += &format!("if [ -f {file} ]; then printf '%s file %s\\n' {token} {number}; ");
        if content {
            // Only a redirection works for names with a dash in front everywhere.
            text +=
                &format!("{{ base64 < {file} 2>/dev/null || od -An -v -tx1 < {file}; }} | {}; ", mark(token));
        }
        text += "fi; ";
    }
    text + &format!("printf '%s end\\n' {token}")
}

/// Puts the token before each line and prints it at once: what others print may come between lines, not into them.
/// `read` makes a system call for each byte, so it is for sandboxes without `awk`.
fn mark(token: &str) -> String {
    format!(
        "if command -v awk > /dev/null; then awk '{{ print \"{token}:\" $0; fflush() }}'; \
         else while IFS= read -r l; do printf '%s:%s\\n' {token} \"$l\"; done; fi"
    )
}

/// Cuts the trailer off the end of the file `log`, and writes the files that came with it to `places`. `None` where
/// there is no trailer: the command did not run to its end.
///
/// # Errors
/// When `log` cannot be read, or a place cannot be written.
pub fn cut(log: &Path, token: &str, places: &[PathBuf]) -> io::Result<Option<Trailer>> {
    let mut file = OpenOptions::new().read(true).write(true).open(log)?;
    let length = file.metadata()?.len();
    // Others may print after the end: the provider's client, a process that was left behind.
    let Some(end) = search(&mut file, length, format!("{token} end").as_bytes())? else { return Ok(None) };
    let Some(start) = search(&mut file, end, format!("\n{token} exit ").as_bytes())? else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(start + 1))?;
    let trailer = parse(BufReader::new((&file).take(end - start - 1)), token, places)?;
    if trailer.is_some() {
        file.set_len(start)?;
    }
    Ok(trailer)
}

fn read(file: &mut File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(to - from).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The last offset of `needle` before `end`.
fn search(file: &mut File, end: u64, needle: &[u8]) -> io::Result<Option<u64>> {
    let finder = FinderRev::new(needle);
    let mut to = end;
    loop {
        let from = to.saturating_sub(BLOCK);
        if let Some(place) = finder.rfind(&read(file, from, to)?) {
            return Ok(Some(from + place as u64));
        }
        if from == 0 {
            return Ok(None);
        }
        to = from + needle.len() as u64;
    }
}

fn parse(mut reader: impl BufRead, token: &str, places: &[PathBuf]) -> io::Result<Option<Trailer>> {
    let mut trailer: Option<Trailer> = None;
    let mut output: Option<BufWriter<File>> = None;
    let mut line = Vec::new();
    // Lines of ours are short; a longer one is read in parts.
    while reader.by_ref().take(BLOCK).read_until(b'\n', &mut line)? > 0 {
        if !line.ends_with(b"\n") {
            let ours = rfind(&line, token.as_bytes()).unwrap_or(line.len().saturating_sub(token.len()));
            line.drain(..ours);
            continue;
        }
        let text = String::from_utf8_lossy(&line);
        // Before it may stand what somebody else printed without a line feed.
        let ours = text.split_once(token).map(|(_, ours)| ours);
        let content = ours.and_then(|ours| ours.strip_prefix(':'));
        match (content, &mut output, ours) {
            (Some(content), Some(output), _) => output.write_all(&decode(content)?)?,
            (None, _, Some(ours)) => {
                if let Some(mut done) = output.take() {
                    done.flush()?;
                }
                let words: Vec<&str> = ours.split_whitespace().collect();
                let number = words.get(1).and_then(|word| word.parse::<i32>().ok());
                match (words.first(), number, &mut trailer) {
                    (Some(&"exit"), Some(status), None) => {
                        trailer = Some(Trailer { status, files: Vec::new() });
                    }
                    (Some(&"file"), Some(number), Some(trailer)) => {
                        let number = usize::try_from(number).unwrap_or(usize::MAX);
                        trailer.files.push(number);
                        output = places.get(number).map(File::create).transpose()?.map(BufWriter::new);
                    }
                    _ => return Ok(None),
                }
            }
            _ => {}
        }
        line.clear();
    }
    if let Some(mut done) = output {
        done.flush()?;
    }
    Ok(trailer)
}

/// A line of base64, or of `od`, which begins with a space.
fn decode(line: &str) -> io::Result<Vec<u8>> {
    let broken = |error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("a file came garbled out of the sandbox: {error}"))
    };
    if line.starts_with(' ') {
        let bytes = line.split_whitespace().map(|word| u8::from_str_radix(word, 16));
        return bytes.collect::<Result<_, _>>().map_err(|error| broken(&error));
    }
    STANDARD.decode(line.trim()).map_err(|error| broken(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `command`, then what [`text`] says of `files`, with these programs on PATH.
    fn printed(directory: &Path, command: &str, files: &[&str], path: &str) -> PathBuf {
        let script = format!("{command}; s=$?; PATH={path}; {}", text("T0K", files, true));
        let log = directory.join("log");
        let output =
            std::process::Command::new("/bin/sh").arg("-c").arg(script).current_dir(directory).output();
        std::fs::write(&log, output.unwrap().stdout).unwrap();
        log
    }

    #[test]
    fn files_come_back_as_they_are_with_and_without_base64() {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..=255_u8).cycle().take(100_000).collect();
        std::fs::write(directory.path().join("-a b"), &bytes).unwrap();
        std::fs::write(directory.path().join("empty"), "").unwrap();
        let bin = directory.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let od = ["/usr/bin/od", "/bin/od"].into_iter().find(|od| Path::new(od).exists()).unwrap();
        std::os::unix::fs::symlink(od, bin.join("od")).unwrap();
        for path in ["$PATH", "bin"] {
            let log =
                printed(directory.path(), "printf out; (exit 7)", &["./-a b", "missing", "empty"], path);
            let places: Vec<PathBuf> =
                (0..3).map(|number| directory.path().join(format!("got-{number}"))).collect();
            let trailer = cut(&log, "T0K", &places).unwrap().unwrap();
            assert_eq!(trailer, Trailer { status: 7, files: vec![0, 2] }, "{path}");
            assert_eq!(std::fs::read(&places[0]).unwrap(), bytes, "{path}");
            assert_eq!(std::fs::read(&places[2]).unwrap(), b"", "{path}");
            assert!(!places[1].exists());
            assert_eq!(std::fs::read_to_string(&log).unwrap(), "out");
        }
    }

    #[test]
    fn files_come_back_whole_while_others_print() {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..=255_u8).cycle().take(300_000).collect();
        std::fs::write(directory.path().join("report"), &bytes).unwrap();
        let bin = directory.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for tool in ["base64", "od"] {
            let found = ["/usr/bin", "/bin"].map(|bin| Path::new(bin).join(tool));
            let found = found.iter().find(|path| path.exists()).unwrap();
            std::os::unix::fs::symlink(found, bin.join(tool)).unwrap();
        }
        let noise = "(while :; do printf 'noise '; printf 'end\n file 0 '; done) & sleep 0.1; (exit 7)";
        for path in ["$PATH", "bin"] {
            let command = format!("{noise}; s=$?; PATH={path}; {}; kill $!", text("T0K", &["report"], true));
            let log = directory.path().join("log");
            let mut shell = std::process::Command::new("/bin/sh");
            shell.arg("-c").arg(command).current_dir(directory.path()).stdout(File::create(&log).unwrap());
            assert!(shell.status().unwrap().success());
            let place = directory.path().join("got");
            let trailer = cut(&log, "T0K", std::slice::from_ref(&place)).unwrap().unwrap();
            assert_eq!(trailer, Trailer { status: 7, files: vec![0] }, "{path}");
            assert_eq!(std::fs::read(&place).unwrap(), bytes, "{path}");
        }
    }

    #[test]
    fn our_lines_are_found_after_long_lines_of_others() {
        let directory = tempfile::tempdir().unwrap();
        let (log, place) = (directory.path().join("log"), directory.path().join("got"));
        // The places at which a long line is read in parts fall into each part of ours.
        for length in BLOCK as usize - 12..=BLOCK as usize {
            let noise = "x".repeat(length);
            std::fs::write(
                &log,
                format!("\nT0K exit 0\n{noise}T0K file 0\n{noise}T0K:YWI=\n{noise}T0K end\n"),
            )
            .unwrap();
            let trailer = cut(&log, "T0K", std::slice::from_ref(&place)).unwrap();
            assert_eq!(trailer, Some(Trailer { status: 0, files: vec![0] }), "{length}");
            assert_eq!(std::fs::read(&place).unwrap(), b"ab", "{length}");
        }
    }

    #[test]
    fn a_command_that_did_not_come_to_its_end_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        for text in ["", "out\nT0K exit 0\n", "T1K exit 0\nT1K end\n", "T0K end\n", "\nT0K exit x\nT0K end\n"]
        {
            std::fs::write(&log, text).unwrap();
            assert_eq!(cut(&log, "T0K", &[]).unwrap(), None, "{text}");
            assert_eq!(std::fs::read_to_string(&log).unwrap().is_empty(), text.is_empty());
        }
    }

    #[test]
    fn carriage_returns_and_a_farewell_are_no_matter() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let bye = "bye\r\n".repeat(100_000) + &"bye".repeat(100_000);
        let text = format!("out\r\n\r\nT0K exit 137\r\nT0K file 0\r\nT0K:YWI=\r\nT0K end\r\n{bye}");
        std::fs::write(&log, text).unwrap();
        let place = directory.path().join("got");
        let trailer = cut(&log, "T0K", std::slice::from_ref(&place)).unwrap();
        assert_eq!(trailer, Some(Trailer { status: 137, files: vec![0] }));
        assert_eq!(std::fs::read(place).unwrap(), b"ab");
        assert_eq!(std::fs::read(&log).unwrap(), b"out\r\n\r");
    }
}
