//! What may go wrong: a row of the matrix says where, how, how often, and in which surroundings.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Discovery,
    Prepare,
    Create,
    Exec,
    Run,
    Report,
    Download,
    Destroy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Fail,
    Hang,
    Die,
    Garbage,
    Late,
    FullDisk,
    /// The server makes what it was asked for, and the client ends before it prints that.
    Orphan,
}

/// At which calls of the step. A disk is full after a few pages, or from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    First,
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    Local,
    Default,
    /// `default` with a `sweep_command`.
    Swept,
    Modal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    Custom,
    Pytest,
    Nextest,
    Vitest,
}

/// Which directory is a disk of its own that fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    Output,
    Journal,
    Sandbox,
    Temporary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub provider: Provider,
    pub framework: Framework,
    pub step: Step,
    pub fault: Fault,
    pub when: When,
}

pub const STEPS: [Step; 8] = [
    Step::Discovery,
    Step::Prepare,
    Step::Create,
    Step::Exec,
    Step::Run,
    Step::Report,
    Step::Download,
    Step::Destroy,
];
pub const FAULTS: [Fault; 7] =
    [Fault::Fail, Fault::Hang, Fault::Die, Fault::Garbage, Fault::Late, Fault::FullDisk, Fault::Orphan];
/// Every so many rows are the sample.
const SAMPLE: usize = 19;
/// Those that may take minutes come first.
const PROVIDERS: [Provider; 4] = [Provider::Modal, Provider::Default, Provider::Swept, Provider::Local];
const FRAMEWORKS: [Framework; 4] =
    [Framework::Custom, Framework::Pytest, Framework::Nextest, Framework::Vitest];

/// A message that is hard to print.
const ODD: &str = "\u{1}\u{fffd}<&\"'\u{1b}[31m";

/// All rows.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for provider in PROVIDERS {
        for framework in FRAMEWORKS {
            for step in STEPS {
                for fault in FAULTS {
                    let of = |when| Row { provider, framework, step, fault, when };
                    rows.extend([When::First, When::Always].map(of).into_iter().filter(Row::exists));
                }
            }
        }
    }
    rows
}

/// Some of them, which do not take long: each step and each fault is there.
pub fn sample() -> Vec<Row> {
    let (orphans, others): (Vec<_>, Vec<_>) = rows().into_iter().partition(|row| row.fault == Fault::Orphan);
    let quick = others.into_iter().filter(|row| !row.takes_minutes());
    quick
        .step_by(SAMPLE)
        .chain(orphans.into_iter().filter(|row| row.framework == Framework::Custom))
        .collect()
}

impl Step {
    /// Steps of the framework; the others are the provider's.
    pub fn is_in_tests(self) -> bool {
        matches!(self, Step::Discovery | Step::Run | Step::Report)
    }

    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

impl Row {
    fn exists(&self) -> bool {
        self.is_possible() && self.is_worth_its_time()
    }

    fn is_possible(&self) -> bool {
        // There is but one listing and one image in a run.
        let once = matches!(self.step, Step::Discovery | Step::Prepare) && self.fault != Fault::FullDisk;
        if once && self.when == When::First {
            return false;
        }
        if self.fault == Fault::Orphan && self.step != Step::Create {
            return false;
        }
        match self.provider {
            Provider::Local => self.step.is_in_tests(),
            Provider::Default => true,
            Provider::Swept => self.step == Step::Create,
            // Files come through the driver, and a create on the server cannot die by a signal here.
            Provider::Modal => match self.step {
                Step::Download => false,
                Step::Create | Step::Destroy => !matches!(self.fault, Fault::Die | Fault::Orphan),
                _ => self.disk() != Some(Disk::Sandbox),
            },
        }
    }

    /// What a provider does does not depend on the framework: of those that take seconds to start, pytest
    /// sees all steps, the others their own, with half of the calls here and the other half there.
    fn is_worth_its_time(&self) -> bool {
        // The sandbox's disk hides the tools.
        if self.disk() == Some(Disk::Sandbox) {
            return self.framework == Framework::Custom;
        }
        match (self.provider, self.framework) {
            (_, Framework::Custom) | (Provider::Local | Provider::Default, Framework::Pytest) => true,
            (Provider::Local, _) => self.when == When::Always,
            (Provider::Default, _) => self.step.is_in_tests() && self.when == When::First,
            (Provider::Modal, Framework::Pytest) => {
                matches!(self.step, Step::Run | Step::Report) && self.when == When::Always
            }
            (Provider::Modal | Provider::Swept, _) => false,
        }
    }

    /// The directory that is full.
    pub fn disk(&self) -> Option<Disk> {
        let journaled = matches!(self.step, Step::Prepare | Step::Create | Step::Destroy);
        let inside = matches!(self.step, Step::Exec | Step::Report) && self.provider != Provider::Local;
        match self.fault {
            Fault::FullDisk if journaled => Some(Disk::Journal),
            Fault::FullDisk if inside => Some(Disk::Sandbox),
            Fault::FullDisk if self.step == Step::Discovery && self.provider != Provider::Modal => {
                Some(Disk::Temporary)
            }
            Fault::FullDisk => Some(Disk::Output),
            _ => None,
        }
    }

    /// Seconds that a step may take.
    pub fn limit(&self, steps: &[Step]) -> u32 {
        let slow = self.framework != Framework::Custom || self.provider == Provider::Modal;
        match self.fault {
            Fault::Hang | Fault::Orphan if steps.contains(&self.step) => 3 + 5 * u32::from(slow),
            _ => 60,
        }
    }

    /// No run may take longer, on a busy machine. What Modal is asked to destroy has a minute of its own,
    /// a second time at the end of its driver, and a third time when it is looked for by its tag.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(if self.takes_minutes() { 300 } else { 120 })
    }

    /// Whether the run ends by deadlines that no configuration sets.
    pub fn takes_minutes(&self) -> bool {
        let by_the_driver = matches!(self.step, Step::Create | Step::Destroy);
        self.provider == Provider::Modal && self.fault == Fault::Hang && by_the_driver
    }

    /// Whether a sandbox may be made after the run: its entry stays in the journal, and its driver a while.
    pub fn may_come_too_late(&self) -> bool {
        let slow = matches!(self.fault, Fault::Late | Fault::Hang);
        self.provider == Provider::Modal && self.step == Step::Create && slow
    }

    /// Whether creates end without an id, and nothing looks for what they left.
    pub fn leaves_unknown(&self) -> bool {
        let ended = matches!(self.fault, Fault::Hang | Fault::Die | Fault::Orphan | Fault::Garbage);
        self.provider == Provider::Default && self.step == Step::Create && ended
    }

    /// Whether the fault changes no result.
    pub fn is_harmless(&self) -> bool {
        self.fault == Fault::Late || (self.step == Step::Destroy && self.fault != Fault::FullDisk)
    }

    /// What the home-made programs read before they do the step: the fault, as text for sh.
    pub fn script(&self, unique: &str) -> String {
        let body = match (self.fault, self.step) {
            (Fault::Fail, Step::Report) => "rm -f \"$report\"; exit 0".to_owned(),
            (Fault::Fail, _) => "echo 'as told: no luck' >&2; exit 3".to_owned(),
            (Fault::Hang, _) => format!("sh -c 'sleep 600; : $0' {unique}; exit 3"),
            (Fault::Die, _) => "kill -9 $$".to_owned(),
            (Fault::Garbage, Step::Report) => "cat garbage > \"$report\"".to_owned(),
            (Fault::Garbage, Step::Destroy) => "cat garbage; cat garbage >&2".to_owned(),
            (Fault::Garbage, Step::Download) => {
                "shift; for pair; do cat garbage > \"${pair#*:}\"; done; exit 0".to_owned()
            }
            (Fault::Garbage, _) => "cat garbage; cat garbage >&2; exit 0".to_owned(),
            (Fault::Late, _) => "sleep 3".to_owned(),
            // By its own death, or at its deadline.
            (Fault::Orphan, _) => format!(
                ": > \"live/$id\"; echo \"create $id\" >> calls; if [ $((n % 2)) = 1 ]; then kill -9 $$; fi\n\
                 sh -c 'sleep 600; : $0' {unique}; exit 3"
            ),
            (Fault::FullDisk, Step::Run) => "head -c 200000 /dev/zero | tr '\\0' x".to_owned(),
            (Fault::FullDisk, _) => ":".to_owned(),
        };
        let step = self.step.name();
        match self.when {
            When::First => format!("if mkdir hit-{step} 2>/dev/null; then\n{body}\nfi\n"),
            When::Always => body + "\n",
        }
    }

    /// What goes wrong at Modal's server.
    pub fn rules(&self) -> Option<Value> {
        let call = match self.step {
            Step::Create => "SandboxCreate",
            Step::Exec => "TaskExecStart",
            Step::Destroy => "SandboxTerminate",
            _ => return None,
        };
        let mut rule = match (self.fault, self.step) {
            // A sandbox that is not found need not be destroyed.
            (Fault::Fail, Step::Exec) => json!({ "status": "NOT_FOUND", "message": "no luck" }),
            (Fault::Fail, _) => json!({ "status": "INVALID_ARGUMENT", "message": "no luck" }),
            // The first of these is tried again for minutes, as an answer of a server that is not well.
            (Fault::Garbage, _) if self.when == When::First => json!({ "status": "UNKNOWN", "message": ODD }),
            (Fault::Garbage, _) => json!({ "status": "INVALID_ARGUMENT", "message": ODD }),
            (Fault::Hang, _) => json!({ "delay": 600.0 }),
            (Fault::Late, _) => json!({ "delay": 3.0 }),
            (Fault::Die, _) => {
                let last = if self.when == When::First { 1 } else { 60 };
                let kill = |number: u32| json!({ "kill_sandbox_at_exec": number, "after": 0.05 });
                return Some((1..=last).map(kill).collect());
            }
            (Fault::FullDisk | Fault::Orphan, _) => return None,
        };
        rule["rpc"] = call.into();
        if self.when == When::First {
            rule["calls"] = json!([1]);
        }
        Some(json!([rule]))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { provider, framework, step, fault, when } = self;
        write!(formatter, "{provider:?}/{framework:?}/{step:?}/{fault:?}/{when:?}")
    }
}
