//! What went wrong, classed by what must happen next.

use std::fmt;

/// What must happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The world misbehaved: try again with backoff, for ever where the checkpoint waits.
    Retry,
    /// Settings, rights or credentials are wrong: stop as `failed` until somebody changes them.
    Config,
    /// This one event can never be delivered: dead-letter it, or stop in front of it.
    Data,
    /// The log no longer holds what was not delivered: stop; resnapshot or accept a gap.
    Lost,
    /// Another owner took over: stop and touch nothing.
    Fenced,
    /// This program is wrong: stop and report.
    Bug,
}

/// What kind of trouble, for the `kind` label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not reachable.
    Connect,
    /// Credentials or rights refused.
    Auth,
    /// Encryption or certificates.
    Tls,
    /// No answer in time.
    Timeout,
    /// The target asks to slow down.
    Throttled,
    /// One event above the target's limit.
    TooLarge,
    /// A template that the event does not fill.
    Route,
    /// The event cannot be encoded.
    Encode,
    /// A schema is refused or unknown.
    Schema,
    /// The target refuses the content.
    Rejected,
    /// The target is in trouble itself.
    Target,
    /// The peer broke the protocol.
    Protocol,
    /// A row or message cannot be decoded.
    Decode,
    /// The log no longer holds the position.
    PositionLost,
    /// Anything else.
    Other,
}

impl Kind {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Connect => "connect",
            Kind::Auth => "auth",
            Kind::Tls => "tls",
            Kind::Timeout => "timeout",
            Kind::Throttled => "throttled",
            Kind::TooLarge => "too_large",
            Kind::Route => "route",
            Kind::Encode => "encode",
            Kind::Schema => "schema",
            Kind::Rejected => "rejected",
            Kind::Target => "target",
            Kind::Protocol => "protocol",
            Kind::Decode => "decode",
            Kind::PositionLost => "position_lost",
            Kind::Other => "other",
        }
    }
}

/// A failure: its class, a stable code, what happened in one sentence, and how to mend it.
///
/// Messages never hold a row's values or a secret.
#[derive(Clone)]
pub struct Fault(Box<Inner>);

#[derive(Clone)]
struct Inner {
    class: Class,
    kind: Kind,
    code: &'static str,
    message: String,
    hint: Option<String>,
    event_id: Option<String>,
}

impl Fault {
    /// A fault of a class, with its stable code (`postgres.slot_busy`) and message.
    #[cold]
    pub fn new(class: Class, code: &'static str, message: impl Into<String>) -> Fault {
        let kind = if class == Class::Lost { Kind::PositionLost } else { Kind::Other };
        Fault(Box::new(Inner { class, kind, code, message: message.into(), hint: None, event_id: None }))
    }

    /// [`Class::Retry`].
    #[cold]
    pub fn retry(code: &'static str, message: impl Into<String>) -> Fault {
        Fault::new(Class::Retry, code, message)
    }

    /// [`Class::Config`].
    #[cold]
    pub fn config(code: &'static str, message: impl Into<String>) -> Fault {
        Fault::new(Class::Config, code, message)
    }

    /// [`Class::Lost`].
    #[cold]
    pub fn lost(code: &'static str, message: impl Into<String>) -> Fault {
        Fault::new(Class::Lost, code, message)
    }

    /// [`Class::Bug`].
    #[cold]
    pub fn bug(code: &'static str, message: impl Into<String>) -> Fault {
        Fault::new(Class::Bug, code, message)
    }

    /// Adds the exact statement, command or setting that mends it.
    pub fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.0.hint = Some(hint.into());
        self
    }

    /// Sets the kind of trouble.
    pub fn kind(mut self, kind: Kind) -> Fault {
        self.0.kind = kind;
        self
    }

    /// Names the event that cannot be delivered.
    pub fn event(mut self, event_id: impl fmt::Display) -> Fault {
        self.0.event_id = Some(event_id.to_string());
        self
    }

    /// What must happen next.
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// The kind of trouble.
    pub fn kind_of(&self) -> Kind {
        self.0.kind
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// How to mend it.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The event it concerns.
    pub fn event_id(&self) -> Option<&str> {
        self.0.event_id.as_deref()
    }

    /// Whether trying again may help.
    pub fn is_retry(&self) -> bool {
        self.0.class == Class::Retry
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.message)?;
        match &self.0.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {self}", self.0.class)
    }
}

impl std::error::Error for Fault {}
