//! What a pipeline says of itself. Running means progressing: whatever keeps a pipeline from moving is in its phase and error.

use deltaforge_core::{Checkpoint, Fault, Position};

/// Whether the pipeline is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs, or recovers by itself.
    Running,
    /// Halted by an operator; the connection is kept.
    Paused,
    /// Ended by an operator.
    Stopped,
    /// It will not try again without an operator.
    Failed,
}

impl State {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Paused => "paused",
            State::Stopped => "stopped",
            State::Failed => "failed",
        }
    }
}

/// What a running pipeline is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connecting for the first time.
    Starting,
    /// Following the log.
    Streaming,
    /// Something is away; tried again by itself.
    Retrying,
    /// Delivering what was read, before it ends.
    Draining,
    /// Not running.
    Idle,
}

impl Phase {
    /// All phases, for metrics.
    pub const ALL: [Phase; 5] =
        [Phase::Starting, Phase::Streaming, Phase::Retrying, Phase::Draining, Phase::Idle];

    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Streaming => "streaming",
            Phase::Retrying => "retrying",
            Phase::Draining => "draining",
            Phase::Idle => "idle",
        }
    }
}

/// The present trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Stable code.
    pub code: String,
    /// What happened.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
    /// `source`, `state`, or the sink's id.
    pub component: String,
    /// The event it concerns.
    pub event_id: Option<String>,
    /// Since when, Unix milliseconds.
    pub at_ms: i64,
}

impl Trouble {
    /// A fault in a component, now.
    pub fn of(fault: &Fault, component: &str) -> Trouble {
        Trouble {
            code: fault.code().into(),
            message: fault.message().into(),
            hint: fault.hint_text().map(Into::into),
            component: component.into(),
            event_id: fault.event_id().map(Into::into),
            at_ms: deltaforge_core::clock::unix_millis(),
        }
    }
}

/// Age of the oldest change that has not reached a place; 0 when it has caught up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    /// Read and decoded.
    pub received_seconds: f64,
    /// Acknowledged as the commit policy asks.
    pub delivered_seconds: f64,
    /// Saved in the state store.
    pub durable_seconds: f64,
    /// Bytes of source log between its newest change and the saved position; `None` while the source cannot be asked.
    pub durable_bytes: Option<u64>,
}

/// What a sink of a running pipeline is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkState {
    /// It was never connected.
    Starting,
    /// Nothing is wrong with it.
    Delivering,
    /// It is away, or refuses; tried again by itself.
    Retrying,
}

impl SinkState {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            SinkState::Starting => "starting",
            SinkState::Delivering => "delivering",
            SinkState::Retrying => "retrying",
        }
    }
}

/// What a sink that nothing waits for did not get, and never will: the last stretch of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last place before it that the sink has acknowledged; `None` when it had acknowledged nothing.
    pub after: Option<Position>,
    /// The first end of a transaction behind it; `None` while that is not known.
    pub until: Option<Position>,
    /// Events in it; `None` when it came about in an earlier run.
    pub events: Option<u64>,
}

/// How far one sink has come.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkStatus {
    /// Its id.
    pub id: String,
    /// Whether the checkpoint may wait for it.
    pub required: bool,
    /// Whether it stores positions with the data.
    pub exactly_once: bool,
    /// What it does.
    pub state: SinkState,
    /// End of the last transaction that it has acknowledged.
    pub position: Option<Position>,
    /// When it acknowledged last, Unix milliseconds.
    pub delivered_ms: Option<i64>,
    /// Events handed to it and not acknowledged.
    pub lag_events: u64,
    /// Age of the oldest of them.
    pub lag_seconds: f64,
    /// Events that it will never get, since the start.
    pub given_up_events: u64,
    /// The last stretch of those.
    pub gap: Option<Gap>,
    /// What is wrong with it.
    pub trouble: Option<Trouble>,
}

/// A pipeline's present condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Whether it is to run.
    pub state: State,
    /// What it does.
    pub phase: Phase,
    /// What keeps it from moving.
    pub trouble: Option<Trouble>,
    /// What the source waits for, in a sentence, when it says so.
    pub note: Option<String>,
    /// Last start, Unix milliseconds.
    pub started_ms: Option<i64>,
    /// The lag ladder.
    pub lag: Lag,
    /// The last saved checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Events delivered since the start, as the commit policy counts.
    pub delivered_events: u64,
    /// The sinks, in the order of the document.
    pub sinks: Vec<SinkStatus>,
}

impl Status {
    /// Before the first start.
    pub fn new() -> Status {
        Status {
            state: State::Running,
            phase: Phase::Starting,
            trouble: None,
            note: None,
            started_ms: None,
            lag: Lag::default(),
            checkpoint: None,
            delivered_events: 0,
            sinks: Vec::new(),
        }
    }

    /// Whether the pipeline does what it should: paused and stopped ones do, and one whose trouble is only that of a sink that
    /// nothing waits for.
    pub fn is_ready(&self) -> bool {
        let of_unwaited =
            |trouble: &Trouble| self.sinks.iter().any(|sink| sink.id == trouble.component && !sink.required);
        match self.state {
            State::Running => self.phase == Phase::Streaming && self.trouble.as_ref().is_none_or(of_unwaited),
            State::Paused | State::Stopped => true,
            State::Failed => false,
        }
    }
}

impl Default for Status {
    fn default() -> Status {
        Status::new()
    }
}
