//! JetStream's questions and answers: what a stream is, what is last in it, and making one.

use super::answer::api_error;
use super::config::{NewStream, Settings};
use super::connection::Connection;
use super::error::{ApiError, malformed};
use super::protocol::{Malformed, Op, status};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deltaforge_core::Fault;
use deltaforge_net::address::Address;
use serde_json::{Value, json};

/// Asks the server.
#[async_trait]
pub(super) trait Ask: Send {
    /// Whom.
    fn address(&self) -> &Address;

    /// The answer; `None` when nobody answers such questions.
    async fn ask(&mut self, subject: String, payload: Vec<u8>) -> Result<Option<Vec<u8>>, Fault>;
}

#[async_trait]
impl Ask for Connection {
    fn address(&self) -> &Address {
        &self.address
    }

    /// One question at a time; the caller limits the time.
    async fn ask(&mut self, subject: String, payload: Vec<u8>) -> Result<Option<Vec<u8>>, Fault> {
        let inbox = new_inbox();
        let mut question =
            format!("SUB {inbox} 2\r\nUNSUB 2 1\r\nPUB {subject} {inbox} {}\r\n", payload.len()).into_bytes();
        question.extend_from_slice(&payload);
        question.extend_from_slice(b"\r\n");
        self.send(&question).await?;
        loop {
            match self.next().await? {
                (Op::Message { subject, head, payload }, bytes)
                    if bytes[subject.clone()] == *inbox.as_bytes() =>
                {
                    let nobody = status(&bytes[head]) == Some(503);
                    return Ok((!nobody).then(|| bytes[payload].to_vec()));
                }
                (Op::Ping, _) => self.send(b"PONG\r\n").await?,
                (Op::Err(text), bytes) => {
                    return Err(super::error::spoken_alive(&self.address, &bytes[text]));
                }
                _ => {}
            }
        }
    }
}

/// A subject for replies that nobody else has.
pub(super) fn new_inbox() -> String {
    format!("_INBOX.{}", uuid::Uuid::new_v4().simple())
}

/// What a stream is.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) subjects: Vec<String>,
    pub(super) retention: String,
    pub(super) discard: String,
    pub(super) storage: String,
    pub(super) replicas: u64,
    /// Seconds; 0 for none.
    pub(super) duplicate_window: f64,
    pub(super) max_age: f64,
    /// -1 for none.
    pub(super) max_msgs: i64,
    pub(super) max_bytes: i64,
    pub(super) max_msg_size: i64,
    pub(super) allow_atomic: bool,
    /// A mirror takes no messages of its own.
    pub(super) mirror: bool,
    pub(super) messages: u64,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
}

impl Facts {
    fn parse(answer: &Value) -> Facts {
        let (config, state) = (&answer["config"], &answer["state"]);
        let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
        let secs = |key: &str| config[key].as_f64().unwrap_or(0.0) / 1e9;
        let limit = |key: &str| config[key].as_i64().unwrap_or(-1);
        let subjects = config["subjects"].as_array().into_iter().flatten();
        Facts {
            subjects: subjects.filter_map(|s| s.as_str().map(str::to_owned)).collect(),
            retention: text("retention"),
            discard: text("discard"),
            storage: text("storage"),
            replicas: config["num_replicas"].as_u64().unwrap_or(1),
            duplicate_window: secs("duplicate_window"),
            max_age: secs("max_age"),
            max_msgs: limit("max_msgs"),
            max_bytes: limit("max_bytes"),
            max_msg_size: limit("max_msg_size"),
            allow_atomic: config["allow_atomic"].as_bool().unwrap_or(false),
            mirror: config.get("mirror").is_some_and(|mirror| !mirror.is_null()),
            messages: state["messages"].as_u64().unwrap_or(0),
            first_seq: state["first_seq"].as_u64().unwrap_or(0),
            last_seq: state["last_seq"].as_u64().unwrap_or(0),
        }
    }
}

/// Asks the API; the inner error is JetStream's.
async fn api<A: Ask + ?Sized>(
    ask: &mut A,
    what: &str,
    stream: &str,
    payload: &Value,
) -> Result<Result<Value, ApiError>, Fault> {
    let payload = if payload.is_null() { Vec::new() } else { payload.to_string().into_bytes() };
    let Some(answer) = ask.ask(format!("$JS.API.STREAM.{what}.{stream}"), payload).await? else {
        // Nobody serves the API: JetStream is off, here and in the cluster.
        return Ok(Err(ApiError { number: 10076, text: "JetStream not enabled".into() }));
    };
    if let Some(error) = api_error(&answer) {
        return Ok(Err(error));
    }
    match serde_json::from_slice(&answer) {
        Ok(value) => Ok(Ok(value)),
        Err(_) => Err(malformed(ask.address(), &Malformed("an answer that is not JSON"))),
    }
}

/// What the stream is; `None` when there is none of that name.
pub(super) async fn info<A: Ask + ?Sized>(ask: &mut A, stream: &str) -> Result<Option<Facts>, Fault> {
    match api(ask, "INFO", stream, &Value::Null).await? {
        Ok(answer) => Ok(Some(Facts::parse(&answer))),
        Err(error) if error.number == 10059 => Ok(None),
        Err(error) => Err(error.fault(ask.address(), None)),
    }
}

/// The headers of a stored message; `None` when it was deleted.
pub(super) async fn stored<A: Ask + ?Sized>(
    ask: &mut A,
    stream: &str,
    seq: u64,
) -> Result<Option<Vec<u8>>, Fault> {
    match api(ask, "MSG.GET", stream, &json!({ "seq": seq })).await? {
        Ok(answer) => {
            let head = answer["message"]["hdrs"].as_str().unwrap_or_default();
            Ok(Some(STANDARD.decode(head).unwrap_or_default()))
        }
        // 10037: no message found.
        Err(error) if error.number == 10037 => Ok(None),
        Err(error) => Err(error.fault(ask.address(), None)),
    }
}

/// Makes the stream. One that another process has made meanwhile, differently, is taken as it is.
pub(super) async fn create<A: Ask + ?Sized>(
    ask: &mut A,
    settings: &Settings,
    name: &str,
    new: &NewStream,
) -> Result<(), Fault> {
    let subjects =
        if new.subjects.is_empty() { vec![settings.subject_filter.clone()] } else { new.subjects.clone() };
    let limit = |n: u64| if n == 0 { -1 } else { i64::try_from(n).unwrap_or(i64::MAX) };
    let mut config = json!({ "name": name, "subjects": subjects, "retention": "limits",
        "storage": if new.memory { "memory" } else { "file" }, "num_replicas": new.replicas,
        "max_age": new.max_age.as_nanos() as u64, "max_bytes": limit(new.max_bytes), "max_msgs": limit(new.max_msgs),
        "max_msg_size": -1, "max_consumers": -1, "max_msgs_per_subject": -1,
        "discard": if new.discard_new { "new" } else { "old" }, "allow_direct": true,
        "duplicate_window": new.duplicate_window.as_nanos() as u64 });
    if settings.exactly_once {
        // A server before 2.12 does not know the word, and leaves it out.
        config["allow_atomic"] = true.into();
    }
    match api(ask, "CREATE", name, &config).await? {
        Ok(_) => Ok(()),
        Err(error) if error.number == 10058 => Ok(()),
        Err(error) => Err(error.fault_of_create(ask.address())),
    }
}
