//! The closed lists of label values.

use crate::fault::Kind;

/// Statuses, in the order in which pipelines are counted; the first is the one that runs.
pub(super) const STATUSES: [&str; 4] = ["running", "paused", "stopped", "failed"];

/// Rungs of the lag ladder below `head`.
pub(super) const RUNGS: [&str; 3] = ["received", "delivered", "durable"];

/// The last table label of a pipeline that has too many tables.
pub(super) const OTHER_TABLES: &str = "_other";

/// Tables with a series of their own, per pipeline.
pub(super) const MAX_TABLES: usize = 1000;

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: [$name; [$($word),*].len()] = [$($name::$variant),*];

            /// The label.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }
    };
}

words! {
    /// Where a batch spends time.
    Stage {
        /// From the hand-over to the sinks until the commit policy holds.
        Sink = "sink",
        /// Saving the checkpoint that covers it.
        Commit = "commit",
    }
}

words! {
    /// Why a batch was cut.
    Trigger {
        /// Its first event waited long enough.
        Timer = "timer",
        /// It was full.
        Limits = "limits",
        /// The pipeline drains.
        Shutdown = "shutdown",
        /// The source had nothing more to give.
        Idle = "idle",
        /// A part of a transaction above the limits.
        TxPart = "tx_part",
        /// The pipeline was paused.
        Pause = "pause",
    }
}

words! {
    /// Why the source waited.
    Reason {
        /// The ceiling on buffered event data.
        Memory = "memory",
        /// Batches in flight.
        Sink = "sink",
        /// An operator's pause.
        Pause = "pause",
    }
}

words! {
    /// What somebody asked of a pipeline.
    Action {
        /// Create.
        Create = "create",
        /// Change.
        Patch = "patch",
        /// Delete.
        Delete = "delete",
        /// Pause.
        Pause = "pause",
        /// Go on.
        Resume = "resume",
        /// Stop.
        Stop = "stop",
    }
}

words! {
    /// A call of the state store.
    StateCall {
        /// Taking over a checkpoint's key.
        Acquire = "acquire",
        /// Reading.
        Load = "load",
        /// Saving a checkpoint.
        Save = "save",
        /// Appending to the schema history.
        AppendSchemas = "append_schemas",
        /// Removing.
        Remove = "remove",
        /// Storing a pipeline's document.
        PutDocument = "put_document",
    }
}

/// Kinds of a sink's failures; others are counted as the last.
pub(super) const SINK_KINDS: [Kind; 12] = [
    Kind::Connect,
    Kind::Auth,
    Kind::Tls,
    Kind::Timeout,
    Kind::Throttled,
    Kind::TooLarge,
    Kind::Route,
    Kind::Encode,
    Kind::Schema,
    Kind::Rejected,
    Kind::Target,
    Kind::Other,
];

/// Kinds of a source's errors; others are counted as the last.
pub(super) const SOURCE_KINDS: [Kind; 9] = [
    Kind::Connect,
    Kind::Auth,
    Kind::Tls,
    Kind::Timeout,
    Kind::Protocol,
    Kind::Decode,
    Kind::Schema,
    Kind::PositionLost,
    Kind::Other,
];

/// Index of a kind in a closed list whose last one is `other`.
pub(super) fn index_of(kinds: &[Kind], kind: Kind) -> usize {
    kinds.iter().position(|k| *k == kind).unwrap_or(kinds.len() - 1)
}

/// The value of `deltaforge_pipeline_status`.
pub(super) fn status_value(index: usize) -> f64 {
    match index {
        0 => 1.0,
        1 => 0.5,
        2 => 0.0,
        _ => -1.0,
    }
}
