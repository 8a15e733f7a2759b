//! The rules: what acquiring, saving and removing do to what is stored. Pure; the memory store is this behind a mutex, the
//! file store is this written down.
//!
//! **Who may write.** A key's epoch only grows: taking over, and removing, count it up. A save or an append is applied if
//! its epoch is the key's, so of all who ever acquired a key at most the last one can change it. Removing therefore keeps
//! the key with its epoch: counting from 1 again would let an owner from before pass for the new one.

use crate::document::{Key, encode, normal};
use crate::faults;
use deltaforge_core::Fault;
use deltaforge_core::checkpoint::{Checkpoint, Lease};
use deltaforge_core::position::Epoch;
use deltaforge_core::schema::SchemaRecord;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything a store keeps. Each part is shared until it changes, so that a copy costs nothing and whether a part has
/// changed is a comparison of pointers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// By source id.
    pub(crate) keys: Arc<BTreeMap<String, Key>>,
    /// By source id, oldest first.
    pub(crate) schemas: Arc<BTreeMap<String, Vec<SchemaRecord>>>,
    /// JSON by pipeline name.
    pub(crate) documents: Arc<BTreeMap<String, String>>,
}

impl Book {
    /// Takes a key over. `rename` tells how to give a key to a pipeline under its new name.
    pub(crate) fn acquire(&mut self, source_id: &str, pipeline: &str, rename: &str) -> Result<Lease, Fault> {
        let mut key = self.keys.get(source_id).cloned().unwrap_or_default();
        check_owner(source_id, &key.pipeline, pipeline, rename)?;
        key.epoch += 1;
        key.pipeline = pipeline.to_owned();
        if let Some(saved) = &mut key.saved {
            saved.pipeline = pipeline.to_owned();
        }
        let lease =
            Lease { source_id: source_id.to_owned(), epoch: Epoch(key.epoch), checkpoint: key.saved.clone() };
        Arc::make_mut(&mut self.keys).insert(source_id.to_owned(), key);
        Ok(lease)
    }

    /// Finishes a removal that was cut short after the key and before its schemas.
    pub(crate) fn sweep(&mut self, source_id: &str) {
        if self.is_unowned(source_id) {
            self.forget_schemas(source_id);
        }
    }

    pub(crate) fn load(&self, source_id: &str) -> Option<Checkpoint> {
        self.keys.get(source_id)?.saved.clone()
    }

    pub(crate) fn save(&mut self, checkpoint: Checkpoint, epoch: Epoch) -> Result<u64, Fault> {
        let mut checkpoint = normal(checkpoint)?;
        let key = self.owned(&checkpoint.source_id, epoch)?;
        let version = key.saved.as_ref().map_or(0, |saved| saved.version) + 1;
        checkpoint.version = version;
        checkpoint.pipeline.clone_from(&key.pipeline);
        let key =
            Key { pipeline: checkpoint.pipeline.clone(), epoch: epoch.0, saved: Some(checkpoint.clone()) };
        Arc::make_mut(&mut self.keys).insert(checkpoint.source_id, key);
        Ok(version)
    }

    pub(crate) fn remove(&mut self, source_id: &str) {
        let Some(key) = self.keys.get(source_id) else { return };
        let removed = Key { epoch: key.epoch + 1, ..Key::default() };
        Arc::make_mut(&mut self.keys).insert(source_id.to_owned(), removed);
        self.forget_schemas(source_id);
    }

    pub(crate) fn list(&self) -> Vec<Checkpoint> {
        self.keys.values().filter_map(|key| key.saved.clone()).collect()
    }

    pub(crate) fn size_bytes(&self, source_id: &str) -> Result<u64, Fault> {
        match self.keys.get(source_id) {
            Some(key) if key.saved.is_some() => Ok(Value::Object(encode(key)?).to_string().len() as u64),
            _ => Ok(0),
        }
    }

    pub(crate) fn schemas(&self, source_id: &str) -> Vec<SchemaRecord> {
        self.schemas.get(source_id).cloned().unwrap_or_default()
    }

    pub(crate) fn append_schemas(
        &mut self,
        source_id: &str,
        records: &[SchemaRecord],
        epoch: Epoch,
    ) -> Result<(), Fault> {
        self.owned(source_id, epoch)?;
        let stored = self.schemas.get(source_id).map_or(&[][..], Vec::as_slice);
        let new = new_records(source_id, stored, records)?.to_vec();
        if !new.is_empty() {
            Arc::make_mut(&mut self.schemas).entry(source_id.to_owned()).or_default().extend(new);
        }
        Ok(())
    }

    pub(crate) fn put_document(&mut self, name: &str, json: &str) -> Result<(), Fault> {
        check_document(name, json)?;
        Arc::make_mut(&mut self.documents).insert(name.to_owned(), json.to_owned());
        Ok(())
    }

    pub(crate) fn remove_document(&mut self, name: &str) {
        if self.documents.contains_key(name) {
            Arc::make_mut(&mut self.documents).remove(name);
        }
    }

    pub(crate) fn documents(&self) -> Vec<(String, String)> {
        self.documents.iter().map(|(name, json)| (name.clone(), json.clone())).collect()
    }

    /// Whether an epoch may still write.
    pub(crate) fn check_owner(&self, source_id: &str, epoch: Epoch) -> Result<(), Fault> {
        self.owned(source_id, epoch).map(|_| ())
    }

    /// Whether nobody owns the key: it was never taken over, or removed.
    pub(crate) fn is_unowned(&self, source_id: &str) -> bool {
        let unowned = |key: &Key| key.pipeline.is_empty() && key.saved.is_none();
        self.keys.get(source_id).is_none_or(unowned)
    }

    fn owned(&self, source_id: &str, epoch: Epoch) -> Result<&Key, Fault> {
        let key = self.keys.get(source_id).filter(|key| key.epoch == epoch.0 && !key.pipeline.is_empty());
        key.ok_or_else(|| faults::fenced(source_id))
    }

    fn forget_schemas(&mut self, source_id: &str) {
        if self.schemas.contains_key(source_id) {
            Arc::make_mut(&mut self.schemas).remove(source_id);
        }
    }
}

/// A key that has an owner's name is that pipeline's until it is removed: a second pipeline would go on from a position
/// before which its own tables were never read.
pub(crate) fn check_owner(source_id: &str, owner: &str, asks: &str, rename: &str) -> Result<(), Fault> {
    if owner.is_empty() || owner == asks {
        return Ok(());
    }
    Err(faults::key_conflict(source_id, owner, asks, rename))
}

/// The part of `records` that is not stored yet.
pub(crate) fn new_records<'a>(
    source_id: &str,
    stored: &[SchemaRecord],
    records: &'a [SchemaRecord],
) -> Result<&'a [SchemaRecord], Fault> {
    let wrong = |record: &SchemaRecord, why: &str| {
        let (number, table) = (record.sequence, &record.table);
        Fault::bug(
            "state.schema_number",
            format!("schema {number} of source `{source_id}`, table `{table}`, {why}"),
        )
    };
    let last = stored.last().map_or(0, |record| record.sequence);
    let known = records.iter().take_while(|record| record.sequence <= last).count();
    let (known, new) = records.split_at(known);
    for record in known {
        let same = |s: &SchemaRecord| {
            (&s.table, &s.fingerprint, s.at, &s.detail)
                == (&record.table, &record.fingerprint, record.at, &record.detail)
        };
        if !stored.iter().any(|s| s.sequence == record.sequence && same(s)) {
            return Err(wrong(record, "is stored with another shape"));
        }
    }
    for (expected, record) in (last + 1..).zip(new) {
        if record.sequence != expected {
            return Err(wrong(record, &format!("leaves a gap: the next number is {expected}")));
        }
        for (what, json) in [("shape", Some(&record.shape)), ("detail", record.detail.as_ref())] {
            let json = json.map(|json| serde_json::from_str::<serde::de::IgnoredAny>(json));
            if let Some(Err(e)) = json {
                return Err(wrong(record, &format!("has a {what} that is not JSON: {e}")));
            }
        }
    }
    Ok(new)
}

/// Only JSON is stored, so that what was put can always be read again.
pub(crate) fn check_document(name: &str, json: &str) -> Result<(), Fault> {
    match serde_json::from_str::<serde::de::IgnoredAny>(json) {
        Ok(_) => Ok(()),
        Err(e) => Err(Fault::bug(
            "state.bad_document",
            format!("the document of pipeline `{name}` is not JSON: {e}"),
        )),
    }
}
