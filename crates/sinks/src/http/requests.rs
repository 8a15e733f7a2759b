//! The events of a batch as requests.
//!
//! Bodies lie one behind the other in one buffer, in batch mode with brackets and commas, so that a request is a slice of it:
//!
//! ```text
//! one by one   {event}{event}{event}
//! batch mode   [{event},{event}][{event}]      a new array begins where URL or headers change
//! ```

use super::config::{Settings, has_dot_segment, without_user};
use bytes::Bytes;
use deltaforge_core::fault::{Class, Kind};
use deltaforge_core::sink::SinkContext;
use deltaforge_core::{Batch, Event, EventId, Fault};
use deltaforge_encode::Encoder;
use deltaforge_encode::template::percent_encode;
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use std::ops::Range;
use std::sync::Arc;

/// A batch, ready to be sent.
#[derive(Debug, Default)]
pub(super) struct Requests {
    bytes: Bytes,
    events: Vec<Sent>,
    pub(super) runs: Vec<Run>,
    /// Bytes of the events alone.
    pub(super) payload: u64,
}

/// One event in the buffer.
#[derive(Clone, Debug)]
struct Sent {
    id: EventId,
    body: Range<usize>,
}

/// Events that travel in one request.
#[derive(Debug)]
pub(super) struct Run {
    /// `None`: the constant one.
    pub(super) url: Option<Url>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) events: Range<usize>,
}

impl Requests {
    pub(super) fn id(&self, event: usize) -> EventId {
        self.events.get(event).map_or_else(EventId::default, |sent| sent.id)
    }

    /// The body of some events of a run.
    pub(super) fn body(&self, run: &Run, part: &Range<usize>, batch_mode: bool) -> Bytes {
        let (Some(first), Some(last)) = (self.events.get(part.start), self.events.get(part.end - 1)) else {
            return Bytes::new();
        };
        let events = first.body.start..last.body.end;
        if !batch_mode {
            self.bytes.slice(events)
        } else if *part == run.events {
            self.bytes.slice(events.start - 1..events.end + 1)
        } else {
            let mut array = Vec::with_capacity(events.len() + 2);
            array.push(b'[');
            array.extend_from_slice(&self.bytes[events]);
            array.push(b']');
            array.into()
        }
    }
}

/// Writes requests.
pub(super) struct Writer {
    settings: Arc<Settings>,
    encoder: Encoder,
    context: SinkContext,
    url: Vec<u8>,
    /// The text of the present run's URL.
    run_url: Vec<u8>,
    scratch: Vec<u8>,
    capacity: usize,
}

impl Writer {
    pub(super) fn new(settings: Arc<Settings>, context: &SinkContext) -> Writer {
        let encoder = Encoder::new(&settings.common.envelope, context);
        Writer {
            settings,
            encoder,
            context: context.clone(),
            url: Vec::new(),
            run_url: Vec::new(),
            scratch: Vec::new(),
            capacity: 0,
        }
    }

    /// Writes a batch.
    ///
    /// # Errors
    /// `Data` for an event whose URL cannot be filled or is none.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<Requests, Fault> {
        let mut bytes = Vec::with_capacity(self.capacity);
        let mut requests = Requests { events: Vec::with_capacity(batch.len()), ..Requests::default() };
        let batch_mode = self.settings.batch_mode;
        self.encoder.prepare(batch);
        for (index, event) in batch.events().enumerate() {
            self.fill_url(&event)?;
            let headers = self.headers(&event)?;
            let joins = batch_mode && self.url == self.run_url;
            match requests.runs.last_mut().filter(|run| joins && run.headers == headers) {
                Some(run) => {
                    run.events.end += 1;
                    bytes.push(b',');
                }
                None => {
                    if batch_mode {
                        let open = if index > 0 { &b"]["[..] } else { b"[" };
                        bytes.extend_from_slice(open);
                    }
                    let url = self.parsed_url(event.id())?;
                    requests.runs.push(Run { url, headers, events: index..index + 1 });
                    std::mem::swap(&mut self.url, &mut self.run_url);
                }
            }
            let start = bytes.len();
            self.encoder.event(&event, &mut bytes);
            requests.payload += (bytes.len() - start) as u64;
            requests.events.push(Sent { id: event.id(), body: start..bytes.len() });
        }
        if batch_mode {
            bytes.push(b']');
        }
        // The next batch is about as large, unless this one was a giant.
        self.capacity = bytes.len().min(4 * 1024 * 1024);
        requests.bytes = bytes.into();
        Ok(requests)
    }

    /// The URL's text, when it is not the constant one.
    fn fill_url(&mut self, event: &Event<'_>) -> Result<(), Fault> {
        self.url.clear();
        let target = &self.settings.target;
        if target.constant.is_some() {
            return Ok(());
        }
        let filled = target.template.render_clean(event, &self.context, percent_encode, &mut self.url);
        filled.map_err(|why| why.fault(event.id()))
    }

    fn parsed_url(&self, event: EventId) -> Result<Option<Url>, Fault> {
        if self.settings.target.constant.is_some() {
            return Ok(None);
        }
        let text = std::str::from_utf8(&self.url).ok().filter(|text| !has_dot_segment(text.as_bytes()));
        let parsed = text.and_then(|text| Url::parse(text).ok());
        let Some(mut url) = parsed else {
            let message = "the event makes no URL of the template in `url`";
            return Err(Fault::new(Class::Data, "http.bad_url", message).kind(Kind::Route).event(event));
        };
        without_user(&mut url);
        Ok(Some(url))
    }

    /// The headers that an event fills; one that it does not fill is left out.
    fn headers(&mut self, event: &Event<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
        let Writer { settings, encoder, context, scratch, .. } = self;
        let mut headers = Vec::with_capacity(settings.filled.len() + 2);
        for (name, template) in &settings.filled {
            scratch.clear();
            if template.render_json(event, context, scratch).is_ok() {
                headers.push((name.clone(), value(scratch, event.id())?));
            }
        }
        if settings.batch_mode {
            return Ok(headers);
        }
        scratch.clear();
        let key = settings.key.as_ref();
        if key.is_none_or(|key| key.render_json(event, context, scratch).is_err()) {
            encoder.key(event, scratch);
        }
        headers.push((HeaderName::from_static("df-key"), value(scratch, event.id())?));
        scratch.clear();
        // A key that a template makes belongs to no row, so the row's old key would say nothing about it.
        if key.is_none() && encoder.old_key(event, scratch) {
            headers.push((HeaderName::from_static("df-old-key"), value(scratch, event.id())?));
        }
        Ok(headers)
    }
}

/// A header's value: as it is, but for the control characters that none may hold. They are percent-encoded.
fn value(bytes: &[u8], event: EventId) -> Result<HeaderValue, Fault> {
    let made = if bytes.iter().any(u8::is_ascii_control) {
        let mut clean = Vec::with_capacity(bytes.len() + 8);
        for byte in bytes {
            if byte.is_ascii_control() {
                let from = clean.len();
                clean.push(*byte);
                percent_encode(&mut clean, from);
            } else {
                clean.push(*byte);
            }
        }
        HeaderValue::from_bytes(&clean)
    } else {
        HeaderValue::from_bytes(bytes)
    };
    made.map_err(|_| {
        Fault::new(Class::Data, "http.bad_header", "the event fills a header with what no header may hold")
            .kind(Kind::Route)
            .event(event)
    })
}
