//! Signals that stop a run.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cancel::Cancel;
use crate::error::{Problem, Status};

/// How long after a second signal the program ends, whatever it does.
const FORCED_END: Duration = Duration::from_secs(3);

/// A flag that SIGINT, SIGTERM and SIGHUP raise; the second one with force. Signals that were ignored when the
/// program started, as SIGHUP is under `nohup`, stay ignored.
pub(super) fn cancel_on_signals() -> Result<Cancel, Problem> {
    let cancel = Cancel::new();
    let ignored = ignored();
    let is_heard = |signal: &i32| ignored & (1 << (*signal - 1)) == 0;
    if is_heard(&SIGINT) {
        let flag = cancel.clone();
        ctrlc::set_handler(move || stop(&flag))
            .map_err(|error| anyhow::Error::new(error).context("cannot listen for signals"))?;
    } else {
        // Shells start background jobs so. Unlike an ignored signal, one that is heard and not acted on is not
        // inherited by children: pytest must hear it when we send it.
        signal_hook::flag::register(SIGINT, Arc::default()).context("cannot listen for signals")?;
    }
    let heard: Vec<i32> = [SIGTERM, SIGHUP].into_iter().filter(is_heard).collect();
    let mut signals = Signals::new(heard).context("cannot listen for signals")?;
    let flag = cancel.clone();
    let listen = move || signals.forever().for_each(|_| stop(&flag));
    std::thread::Builder::new().name("signals".into()).spawn(listen).context("cannot listen for signals")?;
    Ok(cancel)
}

/// The signals that are ignored, a bit for each, the lowest for signal 1. None where the system does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn stop(cancel: &Cancel) {
    let is_second = cancel.is_raised();
    cancel.raise();
    if is_second {
        force_end();
    }
    log::warn!(
        "{}",
        if is_second { "stopping at once" } else { "stopping; a second signal kills everything at once" }
    );
}

/// Ends the program even where a thread is stuck, in a write that nobody reads for instance. By then
/// children have got KILL.
#[expect(clippy::exit, reason = "the threads that would have to return are the ones that are stuck")]
fn force_end() {
    std::thread::spawn(|| {
        std::thread::sleep(FORCED_END);
        std::process::exit(i32::from(Status::Interrupted.code()));
    });
}
