//! The timeline of a run in the Chrome trace event format, which Perfetto can open.
//!
//! Source of the format: "Trace Event Format", Google, 2016. Times are in microseconds since the start.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A row of the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Track {
    /// Config, discovery, planning, reports.
    Phases,
    /// The image, in parallel with discovery.
    Image,
    /// The sandbox of a worker.
    Sandbox(usize),
    /// Reading its results, which overlaps with the next batch.
    Results(usize),
}

impl Track {
    fn number(self) -> usize {
        match self {
            Track::Phases => 1,
            Track::Image => 2,
            Track::Sandbox(slot) => 2 * slot + 3,
            Track::Results(slot) => 2 * slot + 4,
        }
    }

    fn name(self) -> String {
        match self {
            Track::Phases => "phases".into(),
            Track::Image => "image".into(),
            Track::Sandbox(slot) => format!("sandbox {slot}"),
            Track::Results(slot) => format!("sandbox {slot}: results"),
        }
    }
}

#[derive(Debug)]
struct Slice {
    track: Track,
    name: String,
    start: Duration,
    length: Duration,
    arguments: Value,
}

#[derive(Debug)]
struct Recording {
    epoch: Instant,
    slices: Mutex<Vec<Slice>>,
}

/// A recording shared by many threads. If it is off, it costs nothing and does not read the clock.
#[derive(Clone, Debug, Default)]
pub struct Trace(Option<Arc<Recording>>);

impl Trace {
    /// A trace that records nothing.
    pub fn off() -> Trace {
        Trace(None)
    }

    /// A recording that starts at `epoch`.
    pub fn on(epoch: Instant) -> Trace {
        Trace(Some(Arc::new(Recording { epoch, slices: Mutex::default() })))
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Measures until the returned span is dropped.
    #[must_use]
    pub fn span(&self, track: Track, name: impl FnOnce() -> String) -> Span {
        Span(self.0.as_ref().map(|recording| {
            (
                Arc::clone(recording),
                Slice {
                    track,
                    name: name(),
                    start: recording.epoch.elapsed(),
                    length: Duration::ZERO,
                    arguments: Value::Null,
                },
            )
        }))
    }

    /// Adds a slice that took `length` and ended `before_now` ago.
    pub fn add(&self, track: Track, name: String, before_now: Duration, length: Duration) {
        if let Some(recording) = &self.0 {
            let start = recording.epoch.elapsed().saturating_sub(before_now).saturating_sub(length);
            recording.push(Slice { track, name, start, length, arguments: Value::Null });
        }
    }

    /// Writes the recording as one JSON object.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        let Some(recording) = &self.0 else { return Ok(()) };
        let mut slices = recording.slices.lock().unwrap_or_else(PoisonError::into_inner);
        slices.sort_by_key(|slice| (slice.track, slice.start));
        let mut tracks: Vec<Track> = slices.iter().map(|slice| slice.track).collect();
        tracks.dedup();
        write!(output, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        let process =
            json!({"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": "offload"}});
        write!(output, "\n{process}")?;
        for track in tracks {
            let (number, name) = (track.number(), track.name());
            let thread =
                json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": number, "args": {"name": name}});
            let order = json!({"ph": "M", "name": "thread_sort_index", "pid": 1, "tid": number, "args": {"sort_index": number}});
            write!(output, ",\n{thread},\n{order}")?;
        }
        for slice in slices.iter() {
            let mut event = json!({
                "ph": "X",
                "name": slice.name,
                "pid": 1,
                "tid": slice.track.number(),
                "ts": micros(slice.start),
                "dur": micros(slice.length),
            });
            if !slice.arguments.is_null() {
                event["args"] = slice.arguments.clone();
            }
            write!(output, ",\n{event}")?;
        }
        writeln!(output, "\n]}}")
    }
}

impl Recording {
    fn push(&self, slice: Slice) {
        self.slices.lock().unwrap_or_else(PoisonError::into_inner).push(slice);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A slice being measured.
#[derive(Debug)]
pub struct Span(Option<(Arc<Recording>, Slice)>);

impl Span {
    /// Adds an argument to the slice.
    pub fn note(&mut self, key: &str, value: impl Into<Value>) {
        if let Some((_, slice)) = &mut self.0 {
            if slice.arguments.is_null() {
                slice.arguments = json!({});
            }
            slice.arguments[key] = value.into();
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some((recording, mut slice)) = self.0.take() {
            slice.length = recording.epoch.elapsed().saturating_sub(slice.start);
            recording.push(slice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_each_track_and_holds_each_slice() {
        let trace = Trace::on(Instant::now());
        trace.span(Track::Sandbox(1), || "batch \"0\"".into()).note("tests", 3);
        drop(trace.span(Track::Phases, || "discovery".into()));
        trace.add(Track::Sandbox(1), "test".into(), Duration::ZERO, Duration::from_secs(100));
        let mut output = Vec::new();
        trace.write(&mut output).unwrap();
        let value: Value = serde_json::from_slice(&output).unwrap();
        let events = value["traceEvents"].as_array().unwrap();
        let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).collect::<Vec<_>>();
        assert_eq!((of("M").len(), of("X").len()), (5, 3));
        let batch = of("X").into_iter().find(|event| event["name"] == "batch \"0\"").unwrap();
        assert_eq!((&batch["args"]["tests"], &batch["tid"]), (&json!(3), &json!(5)));
        let test = of("X").into_iter().find(|event| event["name"] == "test").unwrap();
        assert_eq!((&test["ts"], &test["dur"]), (&json!(0), &json!(100_000_000)));
    }

    #[test]
    fn nothing_is_recorded_when_it_is_off() {
        let trace = Trace::off();
        drop(trace.span(Track::Phases, || unreachable!("no name is made")));
        let mut output = Vec::new();
        trace.write(&mut output).unwrap();
        assert!(output.is_empty());
    }
}
