//! encode (skeleton)
use deltaforge_core::{Batch, Event, EventId, config::Fields, sink::SinkContext};
pub mod json { #![allow(missing_docs)]
    use deltaforge_core::Value;
    pub fn value(_value: Value<'_>, _out: &mut Vec<u8>) {}
    pub fn string(_text: &str, _out: &mut Vec<u8>) {}
}
pub mod template { #![allow(missing_docs)]
    use deltaforge_core::{Event, sink::SinkContext};
    #[derive(Clone, Debug)] pub struct Template(String);
    #[derive(Clone, Debug)] pub struct RouteError;
    impl Template {
        pub fn parse(text: &str) -> Result<Template, String> { Ok(Template(text.into())) }
        pub fn is_constant(&self) -> Option<&str> { Some(&self.0) }
        pub fn render(&self, _e: &Event<'_>, _c: &SinkContext, _out: &mut Vec<u8>) -> Result<(), RouteError> { Ok(()) }
    }
}
/// plan
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvelopePlan;
impl EnvelopePlan {
    /// parse
    pub fn parse(_fields: &mut Fields<'_>) -> EnvelopePlan { EnvelopePlan }
    /// type
    pub fn content_type(&self) -> &'static str { "application/json" }
}
/// encoder
#[derive(Debug)]
pub struct Encoder;
impl Encoder {
    /// new
    pub fn new(_plan: &EnvelopePlan, _context: &SinkContext) -> Encoder { Encoder }
    /// prepare
    pub fn prepare(&mut self, _batch: &Batch) {}
    /// event
    pub fn event(&mut self, _event: &Event<'_>, _out: &mut Vec<u8>) {}
    /// key
    pub fn key(&mut self, _event: &Event<'_>, _out: &mut Vec<u8>) {}
    /// old key
    pub fn old_key(&mut self, _event: &Event<'_>, _out: &mut Vec<u8>) -> bool { false }
    /// id
    pub fn event_id(_id: EventId, _out: &mut Vec<u8>) {}
}
