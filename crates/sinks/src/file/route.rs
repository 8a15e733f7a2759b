//! Which file an event goes to.

use deltaforge_core::fault::{Class, Fault, Kind};
use deltaforge_core::sink::SinkContext;
use deltaforge_core::{Event, EventId};
use deltaforge_encode::template::{Template, replace};

/// Fills the template of the path.
///
/// Values of the row come from whoever may write to the database, so they choose a name and never a place: separators in them
/// become `_`, and a value that would make a whole part of the path `.` or `..` is refused.
#[derive(Debug)]
pub(super) struct Route {
    path: Template,
    context: SinkContext,
    rendered: Vec<u8>,
}

impl Route {
    pub(super) fn new(path: &Template, context: &SinkContext) -> Route {
        Route { path: path.clone(), context: context.clone(), rendered: Vec::new() }
    }

    /// The path of an event.
    ///
    /// # Errors
    /// `Data` when the event does not fill the template, or fills it with what is no name.
    pub(super) fn path_of(&mut self, event: &Event<'_>) -> Result<&str, Fault> {
        self.rendered.clear();
        let mut refused = false;
        let clean = |out: &mut Vec<u8>, from: usize| {
            replace(out, from, |byte| matches!(byte, b'/' | b'\\' | 0));
        };
        if let Err(why) = self.path.render_clean(event, &self.context, clean, &mut self.rendered) {
            return Err(why.fault(event.id()));
        }
        let path = std::str::from_utf8(&self.rendered).ok();
        let parts = path.into_iter().flat_map(|path| path.split('/'));
        for part in parts {
            // 255 bytes is what file systems take; a rotated file's name is longer by 20.
            refused |= part == ".." || part.len() > 230;
        }
        match path {
            Some(path) if !refused && !path.is_empty() && !path.ends_with('/') => Ok(path),
            _ => Err(no_name(event.id())),
        }
    }
}

fn no_name(event: EventId) -> Fault {
    let message = "the event fills the template of `path` with what cannot be a file's name";
    Fault::new(Class::Data, "sink.not_routable", message)
        .kind(Kind::Route)
        .hint("fill it from values that are neither empty, nor `..`, nor longer than 230 bytes")
        .event(event)
}
