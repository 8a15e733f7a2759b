//! Events as records, written straight from the batch into one buffer.
//!
//! A whole batch is encoded before the first of its records is handed to the client: an event that no topic can be found for,
//! or that is too large, is found while nothing of its batch has left.
//!
//! The headers are `df-event-id`, `content-type`, `df-old-key` where the event's key changed, then the configured ones. A
//! tombstone has the key alone, and no id: a consumer that skips ids it knows would skip it.

use super::config::Settings;
use deltaforge_core::fault::{Class, Fault, Kind};
use deltaforge_core::sink::SinkContext;
use deltaforge_core::{Batch, Event, EventId, Op};
use deltaforge_encode::Encoder;
use deltaforge_encode::template::Template;
use rdkafka::message::{Header, OwnedHeaders};
use std::collections::HashMap;
use std::ops::Range;

/// A name above this cannot be a folder of the broker.
pub(super) const TOPIC_LONGEST: usize = 249;
/// Above what key, value and headers take, a record of the newest format takes at most so many bytes; each header so many.
const RECORD_OVERHEAD: usize = 40;
const HEADER_OVERHEAD: usize = 10;
/// Names of topics are remembered, up to this many.
const KNOWN_TOPICS: usize = 10_000;
/// Room of a batch of usual size is kept for the next one.
const KEPT_BYTES: usize = 32 * 1024 * 1024;

/// Whether it can be the name of a topic.
pub(super) fn is_topic(name: &[u8]) -> bool {
    (1..=TOPIC_LONGEST).contains(&name.len())
        && name != b"."
        && name != b".."
        && name.iter().all(|byte| in_topic(*byte))
}

fn in_topic(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// One record, as ranges of the buffer.
#[derive(Debug)]
pub(super) struct Record {
    /// Index of its event.
    pub(super) event: u32,
    topic: u32,
    key: Range<usize>,
    /// `None` is a tombstone.
    value: Option<Range<usize>>,
    id: Range<usize>,
    old_key: Range<usize>,
    /// Where the values of its configured headers begin in `more`.
    more: Range<usize>,
    /// Milliseconds.
    pub(super) time: i64,
}

/// Writes records.
pub(super) struct Records {
    encoder: Encoder,
    context: SinkContext,
    topic: Template,
    key: Option<Template>,
    headers: Vec<(String, Template)>,
    content_type: &'static str,
    tombstones: bool,
    largest: usize,
    topics: Vec<String>,
    known: HashMap<Vec<u8>, u32>,
    name: Vec<u8>,
    out: Vec<u8>,
    records: Vec<Record>,
    /// Index of the header and its value's range.
    more: Vec<(usize, Range<usize>)>,
}

impl Records {
    pub(super) fn new(settings: &Settings, context: &SinkContext) -> Records {
        Records {
            encoder: Encoder::new(&settings.common.envelope, context),
            context: context.clone(),
            topics: settings.topic.is_constant().map(str::to_owned).into_iter().collect(),
            topic: settings.topic.clone(),
            key: settings.key.clone(),
            headers: settings.headers.clone(),
            content_type: settings.common.envelope.content_type(),
            tombstones: settings.tombstones,
            largest: settings.message_max_bytes,
            known: HashMap::new(),
            name: Vec::new(),
            out: Vec::new(),
            records: Vec::new(),
            more: Vec::new(),
        }
    }

    /// Encodes a batch; gives the bytes of its payloads.
    ///
    /// # Errors
    /// `Data`, naming the event that cannot be sent.
    pub(super) fn encode(&mut self, batch: &Batch) -> Result<u64, Fault> {
        self.encoder.prepare(batch);
        self.records.clear();
        self.more.clear();
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES);
        let mut payload = 0;
        for (index, event) in batch.events().enumerate() {
            payload += self.record(index as u32, &event)? as u64;
        }
        Ok(payload)
    }

    fn record(&mut self, index: u32, event: &Event<'_>) -> Result<usize, Fault> {
        let topic = self.topic_of(event)?;
        let (encoder, out) = (&mut self.encoder, &mut self.out);
        let start = out.len();
        Encoder::event_id(event.id(), out);
        let id = start..out.len();
        let start = out.len();
        let rendered =
            self.key.as_ref().is_some_and(|key| key.render_json(event, &self.context, out).is_ok());
        if !rendered {
            encoder.key(event, out);
        }
        let key = start..out.len();
        let start = out.len();
        // A key that a template makes belongs to no row, so the row's old key would say nothing about it.
        if self.key.is_none() {
            encoder.old_key(event, out);
        }
        let old_key = start..out.len();
        let start = out.len();
        encoder.event(event, out);
        let value = start..out.len();
        let mut headers =
            RECORD_OVERHEAD + 2 * HEADER_OVERHEAD + 11 + id.len() + 12 + self.content_type.len();
        if !old_key.is_empty() {
            headers += HEADER_OVERHEAD + 10 + old_key.len();
        }
        let first = self.more.len();
        for (at, (name, template)) in self.headers.iter().enumerate() {
            let start = out.len();
            if template.render_json(event, &self.context, out).is_ok() {
                headers += HEADER_OVERHEAD + name.len() + out.len() - start;
                self.more.push((at, start..out.len()));
            }
        }
        let (payload, size) = (value.len(), headers + key.len() + value.len());
        if size > self.largest {
            return Err(too_large(size, self.largest, event.id()));
        }
        let time = event.ts_us().div_euclid(1000);
        let more = first..self.more.len();
        let record = Record { event: index, topic, key, value: Some(value), id, old_key, more, time };
        let tombstone = (self.tombstones && event.op() == Op::Delete).then(|| Record {
            key: record.key.clone(),
            value: None,
            id: 0..0,
            old_key: 0..0,
            more: 0..0,
            ..record
        });
        self.records.push(record);
        self.records.extend(tombstone);
        Ok(payload)
    }

    fn topic_of(&mut self, event: &Event<'_>) -> Result<u32, Fault> {
        if self.topic.is_constant().is_some() {
            return Ok(0);
        }
        self.name.clear();
        // Byte by byte: what is not ASCII is forbidden as a whole.
        let clean = |out: &mut Vec<u8>, from: usize| {
            out[from..].iter_mut().filter(|byte| !in_topic(**byte)).for_each(|byte| *byte = b'_');
        };
        let rendered = self.topic.render_clean(event, &self.context, clean, &mut self.name);
        rendered.map_err(|why| why.fault(event.id()))?;
        if let Some(known) = self.known.get(self.name.as_slice()) {
            return Ok(*known);
        }
        let name = std::str::from_utf8(&self.name).ok().filter(|name| is_topic(name.as_bytes()));
        let Some(name) = name else { return Err(no_topic(event.id())) };
        // Between batches only: records of this one point into the list.
        if self.records.is_empty() && self.topics.len() >= KNOWN_TOPICS {
            self.topics.clear();
            self.known.clear();
        }
        let index = self.topics.len() as u32;
        self.topics.push(name.to_owned());
        self.known.insert(self.name.clone(), index);
        Ok(index)
    }

    /// The records of the batch encoded last.
    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// The topics that were met so far.
    pub(super) fn topics(&self) -> &[String] {
        &self.topics
    }

    pub(super) fn topic(&self, record: &Record) -> &str {
        self.topics.get(record.topic as usize).map_or("", String::as_str)
    }

    pub(super) fn key(&self, record: &Record) -> &[u8] {
        &self.out[record.key.clone()]
    }

    pub(super) fn value(&self, record: &Record) -> Option<&[u8]> {
        record.value.clone().map(|value| &self.out[value])
    }

    pub(super) fn headers(&self, record: &Record) -> Option<OwnedHeaders> {
        record.value.as_ref()?;
        let text = |range: &Range<usize>| Some(&self.out[range.clone()]);
        let count = 2 + usize::from(!record.old_key.is_empty()) + record.more.len();
        let mut headers = OwnedHeaders::new_with_capacity(count)
            .insert(Header { key: "df-event-id", value: text(&record.id) })
            .insert(Header { key: "content-type", value: Some(self.content_type) });
        if !record.old_key.is_empty() {
            headers = headers.insert(Header { key: "df-old-key", value: text(&record.old_key) });
        }
        for (at, value) in &self.more[record.more.clone()] {
            headers = headers.insert(Header { key: &self.headers[*at].0, value: text(value) });
        }
        Some(headers)
    }
}

/// An event above the client's limit.
pub(super) fn too_large(bytes: usize, limit: usize, event: EventId) -> Fault {
    let message = format!("the event takes {bytes} bytes as a record, the client sends at most {limit}");
    Fault::new(Class::Data, "kafka.event_too_large", message)
        .kind(Kind::TooLarge)
        .event(event)
        .hint("raise message.max.bytes in client_conf, and max.message.bytes of the topic")
}

fn no_topic(event: EventId) -> Fault {
    let message = "the event fills the template of `topic` with what cannot be a topic's name";
    Fault::new(Class::Data, "sink.not_routable", message)
        .kind(Kind::Route)
        .hint(format!("fill it from values that make 1 to {TOPIC_LONGEST} characters, not `.` or `..`"))
        .event(event)
}
