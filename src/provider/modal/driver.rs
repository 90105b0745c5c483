//! The process that talks to Modal for a whole run: one line of JSON for each request and each answer, many requests
//! at a time.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded, select};
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::Failure;
use crate::cancel::{Cancel, Urgency};
use crate::command::CommandLine;
use crate::error::printable;
use crate::mask::Mask;
use crate::model::Exit;
use crate::process::dialogue::Dialogue;
use crate::provider::patience::wait;

const SHELL: &str = "/bin/sh";
/// The first start on a machine fetches the SDK.
const START: Duration = Duration::from_secs(300);
/// A driver whose input has ended destroys what it made. After this time it goes on alone.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the last lines of a driver that has ended may take to arrive.
const LAST_LINES: Duration = Duration::from_millis(50);
/// How often a driver is started.
const STARTS: u32 = 3;
/// How many lines of the driver's stderr are kept for messages.
const TAIL: usize = 20;

/// Gets the log of an image while it is being built.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// How the driver is started.
pub struct Program {
    /// The command.
    pub command: CommandLine,
    /// Why it cannot be started, if that is known.
    pub missing: Option<String>,
    /// The app of Modal that sandboxes belong to.
    pub app: String,
    /// How long the driver waits at its end for requests under way; a minute at most.
    pub patience: Duration,
    /// Gets build logs.
    pub progress: Progress,
}

impl fmt::Debug for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Program").field("command", &self.command).finish_non_exhaustive()
    }
}

/// An answer, as it is written.
#[derive(Deserialize)]
struct Line {
    id: u64,
    #[serde(default)]
    result: Value,
    error: Option<String>,
    #[serde(default)]
    message: String,
}

type Answer = Result<Value, Failure>;

/// What came from a driver.
#[derive(Default)]
struct Inbox {
    /// Who waits, by the number of the request; `None` once nothing more will come.
    waiting: Mutex<Option<HashMap<u64, Sender<Answer>>>>,
    tail: Mutex<VecDeque<String>>,
    /// Images that are being made.
    images: AtomicU32,
}

/// A driver that is running.
struct Connection {
    dialogue: Dialogue,
    inbox: Arc<Inbox>,
}

/// A request that waits for its answer.
pub(super) struct PendingRequest {
    connection: Arc<Connection>,
    id: u64,
    answer: Receiver<Answer>,
}

/// How a driver ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Everything it made is destroyed.
    Done,
    /// It is still destroying.
    Busy,
    /// It, or one before it, may have left something.
    Broken,
}

/// The driver of a run: started when it is first needed, and again if it breaks down.
pub(super) struct Driver {
    program: Program,
    mask: Arc<Mask>,
    /// `Err` where none can be started: the next request fails at once.
    connection: Mutex<Option<Result<Arc<Connection>, Failure>>>,
    starts: AtomicU32,
    requests: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer in a line of the driver, with the number of its request; `None` for any other line.
pub fn read_answer(line: &str) -> Option<(u64, Result<Value, Failure>)> {
    let Line { id, result, error, message } = serde_json::from_str(line).ok()?;
    Some((id, error.map_or(Ok(result), |class| Err(Failure::Reported { class, message }))))
}

impl Inbox {
    fn line(&self, line: Option<&str>) {
        let Some(line) = line else {
            // This closes the channels of all who wait.
            lock(&self.waiting).take();
            return;
        };
        let Some((id, answer)) = read_answer(line) else {
            log::debug!("the driver of Modal printed a line that is no answer: {line}");
            return;
        };
        let waiting = lock(&self.waiting).as_mut().and_then(|waiting| waiting.remove(&id));
        // Nobody may be waiting any more.
        waiting.into_iter().for_each(|sender| drop(sender.send(answer.clone())));
    }

    fn complaint(&self, line: &str) {
        let mut tail = lock(&self.tail);
        if tail.len() >= TAIL {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    }

    fn tail(&self) -> String {
        lock(&self.tail).iter().map(|line| format!("\n    {line}")).collect()
    }
}

impl PendingRequest {
    /// The answer. `Abandoned` as soon as `cancel` is raised.
    pub(super) fn wait(&self, deadline: Duration, cancel: &Cancel) -> Answer {
        self.wait_until(deadline, &cancel.channel_beyond(Urgency::None))
    }

    /// The answer. `Abandoned` as soon as `abandoned` is closed.
    pub(super) fn wait_until(&self, deadline: Duration, abandoned: &Receiver<()>) -> Answer {
        let received = select! {
            recv(self.answer) -> answer => answer.map_err(|_| TryRecvError::Disconnected),
            // Both may be ready.
            recv(abandoned) -> _ => self.answer.try_recv(),
            default(deadline) => return Err(Failure::TimedOut),
        };
        received.unwrap_or_else(|error| match error {
            TryRecvError::Disconnected => Err(self.connection.broken()),
            TryRecvError::Empty => Err(Failure::Abandoned),
        })
    }

    /// Tells the driver that the answer is no longer wanted.
    pub(super) fn withdraw(&self) {
        self.connection.dialogue.send(json!({ "call": "cancel", "request": self.id }).to_string());
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        if let Some(waiting) = &mut *lock(&self.connection.inbox.waiting) {
            waiting.remove(&self.id);
        }
    }
}

impl Connection {
    fn start(program: &Program, mask: &Arc<Mask>) -> Result<Connection, Failure> {
        if let Some(missing) = &program.missing {
            return Err(Failure::Broken(missing.clone()));
        }
        let inbox = Arc::new(Inbox { waiting: Mutex::new(Some(HashMap::new())), ..Inbox::default() });
        let (answers, complaints) = (Arc::clone(&inbox), Arc::clone(&inbox));
        let (progress, mask) = (Arc::clone(&program.progress), Arc::clone(mask));
        let complain = move |line: Option<&str>| {
            let Some(line) = line else { return };
            let plain = printable(&mask.hide(line));
            if !plain.trim().is_empty() {
                log::debug!("modal: {plain}");
                if complaints.images.load(Ordering::Relaxed) > 0 {
                    progress(&plain);
                }
                complaints.complaint(&plain);
            }
        };
        let dialogue = Dialogue::start(
            &program.command,
            SHELL,
            Box::new(move |line| answers.line(line)),
            Box::new(complain),
        );
        let dialogue = dialogue.map_err(|error| Failure::Broken(error.to_string()))?;
        Ok(Connection { dialogue, inbox })
    }

    fn ask(self: &Arc<Connection>, id: u64, call: &str, request: &Value) -> Result<PendingRequest, Failure> {
        let (sender, answer) = bounded(1);
        match &mut *lock(&self.inbox.waiting) {
            Some(waiting) => drop(waiting.insert(id, sender)),
            None => return Err(self.broken()),
        }
        let mut request = request.clone();
        request["id"] = json!(id);
        request["call"] = json!(call);
        self.dialogue.send(request.to_string());
        Ok(PendingRequest { connection: Arc::clone(self), id, answer })
    }

    fn broken(&self) -> Failure {
        std::thread::sleep(LAST_LINES);
        Failure::Broken(format!("the driver of Modal has ended:{}", self.inbox.tail()))
    }
}

impl Driver {
    pub(super) fn new(program: Program, mask: Arc<Mask>) -> Driver {
        let (starts, requests) = (AtomicU32::new(0), AtomicU64::new(0));
        Driver { program, mask, connection: Mutex::new(None), starts, requests }
    }

    fn number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// The driver that is running, or a new one that has found its app.
    fn connect(&self, cancel: &Cancel) -> Result<Arc<Connection>, Failure> {
        let mut connection = lock(&self.connection);
        match &*connection {
            Some(Ok(running)) if !running.dialogue.is_over() => return Ok(Arc::clone(running)),
            Some(Ok(ended)) if self.starts.load(Ordering::Relaxed) >= STARTS => return Err(ended.broken()),
            Some(Err(failure)) => return Err(failure.clone()),
            _ if cancel.is_raised() => return Err(Failure::Abandoned),
            _ => {}
        }
        self.starts.fetch_add(1, Ordering::Relaxed);
        let new = self.start(cancel);
        if !matches!(new, Err(Failure::Abandoned)) {
            *connection = Some(new.clone());
        }
        new
    }

    /// A new driver that has found its app. One that ends before that has made nothing, and is started again: uv's
    /// lock is in the directory for temporary files, so runs with different ones may disturb each other while uv makes
    /// the environment.
    fn start(&self, cancel: &Cancel) -> Result<Arc<Connection>, Failure> {
        let mut tries = 1;
        loop {
            let new = Arc::new(Connection::start(&self.program, &self.mask)?);
            match self.greet(&new, cancel) {
                Ok(()) => return Ok(new),
                Err(Failure::Broken(reason)) if tries < STARTS && !cancel.is_raised() => {
                    log::debug!("{reason}");
                    cancel.wait(wait(tries));
                    tries += 1;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn greet(&self, connection: &Arc<Connection>, cancel: &Cancel) -> Result<(), Failure> {
        let Program { app, patience, .. } = &self.program;
        let request = json!({ "app": app, "patience": patience.as_secs_f64() });
        let answer = connection.ask(self.number(), "hello", &request)?.wait(START, cancel)?;
        log::debug!("modal: version {} of the SDK", answer["version"]);
        Ok(())
    }

    /// Sends a request, which must be a JSON object.
    pub(super) fn ask(
        &self,
        call: &str,
        request: &Value,
        cancel: &Cancel,
    ) -> Result<PendingRequest, Failure> {
        self.connect(cancel)?.ask(self.number(), call, request)
    }

    /// Sends a request and waits for its answer, or until `cancel` is raised.
    pub(super) fn call(&self, call: &str, request: &Value, deadline: Duration, cancel: &Cancel) -> Answer {
        self.ask(call, request, cancel)?.wait(deadline, cancel)
    }

    /// Makes an image: the driver's stderr meanwhile is its log, which says why it could not be made.
    pub(super) fn prepare(&self, request: &Value, deadline: Duration, cancel: &Cancel) -> Answer {
        let connection = self.connect(cancel)?;
        connection.inbox.images.fetch_add(1, Ordering::Relaxed);
        let pending = connection.ask(self.number(), "prepare", request)?;
        let answer = pending.wait(deadline, cancel);
        connection.inbox.images.fetch_sub(1, Ordering::Relaxed);
        answer.map_err(|failure| match failure {
            Failure::Reported { class, message } => {
                Failure::Reported { message: format!("{message}{}", connection.inbox.tail()), class }
            }
            failure => failure,
        })
    }

    /// Lets the driver destroy everything it made, and end. One that needs longer goes on alone.
    pub(super) fn close(&self) -> Farewell {
        let starts = self.starts.swap(0, Ordering::Relaxed);
        let Some(Ok(connection)) = lock(&self.connection).take() else {
            return if starts <= 1 { Farewell::Done } else { Farewell::Broken };
        };
        match connection.dialogue.leave(FAREWELL) {
            Some(Exit::Code(0)) if starts <= 1 => Farewell::Done,
            Some(_) => Farewell::Broken,
            None => Farewell::Busy,
        }
    }
}
