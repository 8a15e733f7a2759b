//! Events as `XADD` commands, written straight from the batch into the buffer that goes to the socket.
//!
//! ```text
//! XADD <stream> [MAXLEN ~ <n>] * event_id <id> <field> <payload> df-key <key> [df-old-key <old key>]
//! ```
//!
//! What does not change from event to event is prepared once as bytes. The largest of our words that a server takes is known
//! from the connection; a larger one is refused before a byte of it is sent.

use super::config::Settings;
use super::resp::{array, bulk, bulk_with};
use deltaforge_core::fault::{Class, Fault, Kind};
use deltaforge_core::sink::SinkContext;
use deltaforge_core::{Batch, Event, EventId};
use deltaforge_encode::Encoder;
use deltaforge_encode::template::Template;

/// Words without MAXLEN and `df-old-key`: XADD, stream, `*`, and three fields with their names.
const WORDS: usize = 9;

/// Writes entries.
pub(super) struct Entries {
    encoder: Encoder,
    context: SinkContext,
    stream: Template,
    key: Option<Template>,
    /// `*9 XADD <stream>` and, for an entry with an old key, `*11 XADD <stream>`; only for a constant stream.
    heads: Option<[Vec<u8>; 2]>,
    words: usize,
    /// From behind the stream to before the event's id.
    before_id: Vec<u8>,
    /// From behind the id to before the payload.
    before_payload: Vec<u8>,
    before_key: Vec<u8>,
    before_old_key: Vec<u8>,
    payload_digits: usize,
    key_digits: usize,
    scratch: Vec<u8>,
    name: Vec<u8>,
}

/// What an entry came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    /// Bytes of the event.
    pub(super) payload: usize,
    /// Bytes of the longest word.
    pub(super) longest: usize,
}

impl Entries {
    pub(super) fn new(settings: &Settings, context: &SinkContext) -> Entries {
        let (mut before_id, mut before_payload) = (Vec::new(), b"\r\n".to_vec());
        let mut words = WORDS;
        if settings.maxlen > 0 {
            words += 3;
            bulk(&mut before_id, b"MAXLEN");
            bulk(&mut before_id, b"~");
            bulk(&mut before_id, settings.maxlen.to_string().as_bytes());
        }
        bulk(&mut before_id, b"*");
        bulk(&mut before_id, b"event_id");
        before_id.extend_from_slice(b"$36\r\n");
        bulk(&mut before_payload, settings.field.as_bytes());
        let (mut before_key, mut before_old_key) = (Vec::new(), Vec::new());
        bulk(&mut before_key, b"df-key");
        bulk(&mut before_old_key, b"df-old-key");
        let head = |name: &str, words| {
            let mut head = Vec::new();
            write_head(&mut head, words, name.as_bytes());
            head
        };
        Entries {
            encoder: Encoder::new(&settings.common.envelope, context),
            context: context.clone(),
            heads: settings.stream.is_constant().map(|name| [head(name, words), head(name, words + 2)]),
            stream: settings.stream.clone(),
            key: settings.key.clone(),
            words,
            before_id,
            before_payload,
            before_key,
            before_old_key,
            payload_digits: 3,
            key_digits: 2,
            scratch: Vec::new(),
            name: Vec::new(),
        }
    }

    /// To be called before the events of a batch.
    pub(super) fn prepare(&mut self, batch: &Batch) {
        self.encoder.prepare(batch);
    }

    /// The stream of an event; `None` stands for the constant one.
    ///
    /// # Errors
    /// `Data` when the event does not fill the template.
    pub(super) fn stream_of(&mut self, event: &Event<'_>) -> Result<Option<&[u8]>, Fault> {
        if self.heads.is_some() {
            return Ok(None);
        }
        self.name.clear();
        match self.stream.render(event, &self.context, &mut self.name) {
            Ok(()) => Ok(Some(&self.name)),
            Err(why) => Err(why.fault(event.id())),
        }
    }

    /// Writes the event that [`stream_of`](Self::stream_of) was asked about last.
    #[inline]
    pub(super) fn write(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Written {
        // The head counts the words, so whether there is an old key must be known first. A key that a template makes belongs
        // to no row, so the row's old key would say nothing about it.
        self.scratch.clear();
        let moved = self.key.is_none() && self.encoder.old_key(event, &mut self.scratch);
        match &self.heads {
            Some(heads) => out.extend_from_slice(&heads[usize::from(moved)]),
            None => write_head(out, if moved { self.words + 2 } else { self.words }, &self.name),
        }
        out.extend_from_slice(&self.before_id);
        Encoder::event_id(event.id(), out);
        out.extend_from_slice(&self.before_payload);
        let encoder = &mut self.encoder;
        let payload = bulk_with(out, &mut self.payload_digits, |out| encoder.event(event, out));
        out.extend_from_slice(&self.before_key);
        let (key, context) = (&self.key, &self.context);
        let key = bulk_with(out, &mut self.key_digits, |out| {
            let rendered = key.as_ref().is_some_and(|key| key.render_json(event, context, out).is_ok());
            if !rendered {
                encoder.key(event, out);
            }
        });
        if moved {
            out.extend_from_slice(&self.before_old_key);
            bulk(out, &self.scratch);
        }
        Written { payload, longest: payload.max(key).max(self.scratch.len()) }
    }
}

fn write_head(out: &mut Vec<u8>, words: usize, stream: &[u8]) {
    array(out, words);
    bulk(out, b"XADD");
    bulk(out, stream);
}

/// An event above the server's limit.
pub(super) fn too_large(bytes: usize, limit: usize, event: EventId) -> Fault {
    let message = format!("the event takes {bytes} bytes, the server takes at most {limit} in one value");
    Fault::new(Class::Data, "redis.event_too_large", message)
        .kind(Kind::TooLarge)
        .event(event)
        .hint("raise proto-max-bulk-len on the server")
}
