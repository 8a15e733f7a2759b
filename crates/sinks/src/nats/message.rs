//! Events as messages.
//!
//! ```text
//! subject                 orders.customers                    from the template, see `subject`
//! Nats-Msg-Id             the event's id                      what JetStream deduplicates by
//! Nats-Expected-Stream    ORDERS                              another stream must not take it
//! content-type            application/json
//! df-key, df-old-key      the key, and the key that the row had before
//! …                       the setting `headers`
//! ```
//!
//! A batch is written into one buffer before any of it is sent: an event that cannot be sent is found while none is. Headers
//! that depend on what was sent before (the chain, see `pump`) are put in front when the message is sent, and again if it is
//! sent again.

use super::config::Settings;
use super::error::{too_large, too_many_headers};
use super::subject;
use deltaforge_core::sink::SinkContext;
use deltaforge_core::{Batch, Event, EventId, Fault, Position};
use deltaforge_encode::Encoder;
use deltaforge_encode::template::Template;

/// The most that is put in front of a message besides positions: the version line, the chain, an atomic batch's headers.
const CHAIN_HEADERS: usize = 512;
/// The most bytes of headers that JetStream stores with a message.
const MOST_HEADERS: usize = 65_535;

/// Most bytes of a message, and the setting that says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) bytes: usize,
    pub(super) setting: &'static str,
}

/// A batch, ready to be sent.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    bytes: Vec<u8>,
    messages: Vec<Message>,
    pub(super) payload_bytes: u64,
    /// Headers of every message, and those of the last one: what an exactly-once sink remembers. Whole lines.
    pub(super) position: Vec<u8>,
    pub(super) end: Vec<u8>,
    /// Events behind the position that come before this batch's, for exactly-once.
    pub(super) before: u64,
    /// The events come beside the stream, and so are not counted.
    pub(super) beside: bool,
}

/// `subject`, then the headers with the empty line behind them, then the payload.
#[derive(Clone, Copy, Debug)]
struct Message {
    start: usize,
    headers: usize,
    payload: usize,
    end: usize,
    id: EventId,
}

impl Prepared {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The event of a message.
    pub(super) fn id(&self, index: usize) -> EventId {
        self.messages.get(index).map(|message| message.id).unwrap_or_default()
    }

    /// Bytes of a message without what is put in front.
    pub(super) fn size(&self, index: usize) -> usize {
        self.messages.get(index).map_or(0, |message| message.end - message.start)
    }

    /// Of the stream's events behind the position so many are there with a message.
    pub(super) fn inside(&self, index: usize) -> u64 {
        self.before + if self.beside { 0 } else { index as u64 + 1 }
    }

    /// Writes a message; `front` is whole header lines.
    pub(super) fn write(&self, index: usize, reply: &str, front: &[u8], out: &mut Vec<u8>) {
        const VERSION: &[u8] = b"NATS/1.0\r\n";
        let Some(message) = self.messages.get(index) else { return };
        let end: &[u8] = if index + 1 == self.messages.len() { &self.end } else { &[] };
        let headers =
            VERSION.len() + front.len() + self.position.len() + end.len() + message.payload - message.headers;
        let total = headers + message.end - message.payload;
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(b"HPUB ");
        out.extend_from_slice(&self.bytes[message.start..message.headers]);
        for word in [reply, number.format(headers)] {
            out.push(b' ');
            out.extend_from_slice(word.as_bytes());
        }
        out.push(b' ');
        out.extend_from_slice(number.format(total).as_bytes());
        for part in
            [b"\r\n", VERSION, front, &self.position, end, &self.bytes[message.headers..message.end], b"\r\n"]
        {
            out.extend_from_slice(part);
        }
    }
}

/// Writes messages.
pub(super) struct Messages {
    encoder: Encoder,
    context: SinkContext,
    subject: Template,
    key: Option<Template>,
    headers: Vec<(Vec<u8>, Template)>,
    /// Lines that every message has.
    constant: Vec<u8>,
    /// To a stream.
    stored: bool,
    /// `df-sink` and `df-writer`, for exactly-once.
    identity: Option<Vec<u8>>,
}

impl Messages {
    /// `identity` is header lines that name the writer; only an exactly-once sink has them.
    pub(super) fn new(settings: &Settings, context: &SinkContext, identity: Option<Vec<u8>>) -> Messages {
        let mut constant = Vec::new();
        if let Some(stream) = &settings.stream {
            line(&mut constant, b"Nats-Expected-Stream", stream.as_bytes());
        }
        line(&mut constant, b"content-type", settings.common.envelope.content_type().as_bytes());
        let headers = settings.headers.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone()));
        Messages {
            encoder: Encoder::new(&settings.common.envelope, context),
            context: context.clone(),
            subject: settings.subject.clone(),
            key: settings.key.clone(),
            headers: headers.collect(),
            constant,
            stored: settings.stream.is_some(),
            identity,
        }
    }

    /// Writes the events of a batch in order. `before` is the last whole position before the batch, `last` the stream's last
    /// event before it.
    ///
    /// # Errors
    /// `Data`, naming the event: not routable, or larger than the server takes.
    pub(super) fn prepare(
        &mut self,
        batch: &Batch,
        before: Option<&Position>,
        last: EventId,
        limit: Limit,
    ) -> Result<Prepared, Fault> {
        self.encoder.prepare(batch);
        let mut prepared = Prepared::default();
        if let Some(identity) = &self.identity {
            prepared.position.extend_from_slice(identity);
            if let Some(before) = before {
                line(&mut prepared.position, b"df-position", before.as_json().as_bytes());
            }
            prepared.beside = batch.last_id().is_none();
            if prepared.beside {
                line(&mut prepared.position, b"df-last", last.to_string().as_bytes());
            }
            if let Some(end) = batch.end() {
                line(&mut prepared.end, b"df-end", end.position.as_json().as_bytes());
            }
        }
        let added = CHAIN_HEADERS + prepared.position.len() + prepared.end.len();
        prepared.messages.reserve(batch.len());
        prepared.bytes.reserve(batch.estimated_bytes() + 256 * batch.len());
        for event in batch.events() {
            let message = self.write(&event, &mut prepared.bytes)?;
            let size = message.end - message.headers + added;
            let headers = message.payload - message.headers + added;
            if self.stored && headers > MOST_HEADERS {
                return Err(too_many_headers(headers, MOST_HEADERS, event.id()));
            }
            if size > limit.bytes {
                return Err(too_large(size, limit.bytes, limit.setting, event.id()));
            }
            prepared.payload_bytes += (message.end - message.payload) as u64;
            prepared.messages.push(message);
        }
        Ok(prepared)
    }

    fn write(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<Message, Fault> {
        let start = out.len();
        self.subject
            .render_clean(event, &self.context, |out, from| subject::escape(out, start, from), out)
            .map_err(|why| why.fault(event.id()))?;
        subject::check(&out[start..], event.id())?;
        let headers = out.len();
        out.extend_from_slice(b"Nats-Msg-Id: ");
        Encoder::event_id(event.id(), out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.constant);
        let (encoder, context) = (&mut self.encoder, &self.context);
        out.extend_from_slice(b"df-key: ");
        let value = out.len();
        let rendered = self.key.as_ref().is_some_and(|key| key.render_json(event, context, out).is_ok());
        if !rendered {
            encoder.key(event, out);
        }
        one_line(out, value);
        // A key that a template makes belongs to no row, so the row's old key would say nothing about it.
        if self.key.is_none() {
            let start = out.len();
            out.extend_from_slice(b"df-old-key: ");
            let value = out.len();
            if encoder.old_key(event, out) {
                one_line(out, value);
            } else {
                out.truncate(start);
            }
        }
        for (name, template) in &self.headers {
            let start = out.len();
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            let value = out.len();
            match template.render_json(event, context, out) {
                Ok(()) => one_line(out, value),
                Err(_) => out.truncate(start),
            }
        }
        out.extend_from_slice(b"\r\n");
        let payload = out.len();
        encoder.event(event, out);
        Ok(Message { start, headers, payload, end: out.len(), id: event.id() })
    }
}

/// Appends a header.
pub(super) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Ends a header whose value begins at `from`. What would end it early, or make another header of it, is percent-encoded.
fn one_line(out: &mut Vec<u8>, from: usize) {
    let ends_line = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    if out[from..].iter().any(ends_line) {
        let value = out.split_off(from);
        for byte in value {
            if ends_line(&byte) {
                out.extend_from_slice(&[
                    b'%',
                    b'0',
                    if byte == 0 { b'0' } else { b"DA"[usize::from(byte == b'\n')] },
                ]);
            } else {
                out.push(byte);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}
