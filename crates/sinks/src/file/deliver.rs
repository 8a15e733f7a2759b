//! The sink: lines of a batch into one reused buffer per file, written in a thread that may block.
//!
//! The next batch is encoded while this one is written and synced. `/dev/null` is written at once: it never blocks, and the way
//! to another thread would cost more than the write.

use super::config::Settings;
use super::route::Route;
use super::writer::{Lines, Writer};
use crate::shared::relay::{Relay, blocking};
use async_trait::async_trait;
use deltaforge_core::sink::{Delivered, Delivery, Receipt, Sink, SinkContext};
use deltaforge_core::{Batch, Fault};
use deltaforge_encode::Encoder;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// Most files kept open; those that a batch does not need are closed above it.
const OPEN_FILES: usize = 128;

/// An open sink.
pub(super) struct FileSink {
    settings: Arc<Settings>,
    encoder: Encoder,
    route: Option<Route>,
    /// The batch being encoded, and the files of it.
    pages: Pages,
    relay: Relay<Desk>,
    /// The one file is `/dev/null`.
    null: bool,
}

/// Lines by file, in the order in which the files appear.
#[derive(Debug, Default)]
struct Pages {
    used: usize,
    pages: Vec<(PathBuf, Lines)>,
    by_path: HashMap<String, usize>,
}

impl Pages {
    /// Empties the buffers and keeps them, unless one has grown beyond what a usual batch needs.
    fn clear(&mut self) {
        self.used = 0;
        self.by_path.clear();
        self.pages.truncate(OPEN_FILES);
        for (_, lines) in &mut self.pages {
            lines.bytes.clear();
            lines.bytes.shrink_to(8 * 1024 * 1024);
            lines.ends.clear();
        }
    }

    fn page(&mut self, path: &str) -> &mut Lines {
        let index = match self.by_path.get(path) {
            Some(index) => *index,
            None => {
                let index = self.used;
                self.used += 1;
                self.by_path.insert(path.into(), index);
                match self.pages.get_mut(index) {
                    Some((old, _)) => *old = path.into(),
                    None => self.pages.push((path.into(), Lines::default())),
                }
                index
            }
        };
        &mut self.pages[index].1
    }
}

/// What the writing thread has: the open files, and the buffers that it gives back.
struct Desk {
    files: HashMap<PathBuf, Writer>,
    spare: Pages,
    settings: Arc<Settings>,
    _turn: OwnedMutexGuard<()>,
}

impl FileSink {
    /// Opens a constant path at once, so that what is wrong with it shows before the first event.
    pub(super) async fn open(
        settings: Arc<Settings>,
        context: &SinkContext,
        turn: OwnedMutexGuard<()>,
    ) -> Result<FileSink, Fault> {
        let constant = settings.path.is_constant().map(PathBuf::from);
        let mut desk =
            Desk { files: HashMap::new(), spare: Pages::default(), settings: settings.clone(), _turn: turn };
        let (desk, null) = blocking(move || {
            let null = match constant {
                Some(path) => desk.file(&path)?.is_null_device(),
                None => false,
            };
            Ok((desk, null))
        })
        .await?;
        let route = settings.path.is_constant().is_none().then(|| Route::new(&settings.path, context));
        let encoder = Encoder::new(&settings.common.envelope, context);
        Ok(FileSink {
            settings,
            encoder,
            route,
            pages: Pages::default(),
            relay: Relay::new("file sink", desk),
            null,
        })
    }

    fn encode(&mut self, batch: &Batch) -> Result<u64, Fault> {
        let FileSink { settings, encoder, route, pages, .. } = self;
        let by_size = settings.rotation.max_bytes > 0;
        let mut bytes = 0;
        encoder.prepare(batch);
        let constant = settings.path.is_constant().unwrap_or_default();
        match route {
            None => {
                let lines = pages.page(constant);
                for event in batch.events() {
                    encoder.event(&event, &mut lines.bytes);
                    lines.bytes.push(b'\n');
                    if by_size {
                        lines.ends.push(lines.bytes.len());
                    }
                }
                bytes += lines.bytes.len();
            }
            Some(route) => {
                for event in batch.events() {
                    let lines = pages.page(route.path_of(&event)?);
                    let before = lines.bytes.len();
                    encoder.event(&event, &mut lines.bytes);
                    lines.bytes.push(b'\n');
                    if by_size {
                        lines.ends.push(lines.bytes.len());
                    }
                    bytes += lines.bytes.len() - before;
                }
            }
        }
        // Newlines are ours, not payload.
        Ok((bytes - batch.len()) as u64)
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn deliver(&mut self, batch: Arc<Batch>, _: Delivery) -> Result<Receipt, Fault> {
        self.pages.clear();
        let encoded = self.encode(&batch);
        // Also when this batch cannot be encoded: the receipts of those before it come first.
        let desk = self.relay.settled().await?;
        let bytes = encoded?;
        if self.null {
            let result = desk.write(&self.pages).map(|()| Delivered { bytes });
            return Ok(Box::pin(std::future::ready(result)));
        }
        let pages = std::mem::replace(&mut self.pages, std::mem::take(&mut desk.spare));
        self.relay
            .hand_over(move |mut desk| {
                blocking(move || {
                    desk.write(&pages)?;
                    desk.spare = pages;
                    Ok((desk, Delivered { bytes }))
                })
            })
            .await
    }

    async fn close(mut self: Box<Self>) {
        let _ = self.relay.settled().await;
    }
}

impl Desk {
    fn file(&mut self, path: &Path) -> Result<&mut Writer, Fault> {
        if !self.files.contains_key(path) {
            let writer = Writer::open(path, self.settings.rotation)?;
            self.files.insert(path.into(), writer);
        }
        self.files.get_mut(path).ok_or_else(|| Fault::bug("file.desk", "a file just opened is not there"))
    }

    fn write(&mut self, pages: &Pages) -> Result<(), Fault> {
        let sync = self.settings.sync;
        if self.files.len() + pages.used > OPEN_FILES {
            self.files.retain(|path, _| path.to_str().is_some_and(|path| pages.by_path.contains_key(path)));
        }
        for (path, lines) in &pages.pages[..pages.used] {
            self.file(path)?.append(lines, sync)?;
        }
        if sync {
            for (path, _) in &pages.pages[..pages.used] {
                self.file(path)?.sync()?;
            }
        }
        Ok(())
    }
}
