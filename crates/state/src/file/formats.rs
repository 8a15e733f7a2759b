//! What stands in each file. Numbers that JSON readers tend to round (`at`) are text; shapes and pipeline documents stand
//! as they were given, byte for byte.

pub(super) use crate::document::Unreadable;
use crate::document::{self, FORMAT, Key, Time};
use deltaforge_core::Fault;
use deltaforge_core::schema::SchemaRecord;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

pub(super) const CHECKPOINTS: &str = "df_checkpoints.json";
pub(super) const SCHEMAS: &str = "df_schemas.json";
pub(super) const PIPELINES: &str = "df_pipelines.json";

/// The newest format of [`SCHEMAS`] that this release reads. Format 2 brought `detail`; a file without any is still written
/// as format 1, so that the release before can read what it could have written.
pub(super) const SCHEMAS_FORMAT: u64 = 2;

/// No place for a format version at the top, where source ids stand: each key carries its own.
pub(super) fn checkpoints(keys: &BTreeMap<String, Key>) -> Result<String, Fault> {
    let mut file = Map::new();
    for (source_id, key) in keys {
        file.insert(source_id.clone(), Value::Object(document::encode(key)?));
    }
    pretty(&file)
}

pub(super) fn read_checkpoints(text: &str) -> Result<BTreeMap<String, Key>, Unreadable> {
    let Unique(file) = from_str::<Unique<Map<String, Value>>>(text)?;
    let keys = file.into_iter().map(|(source_id, object)| match document::decode(&source_id, object) {
        Ok(key) => Ok((source_id, key)),
        Err(Unreadable::Wrong(why)) => Err(Unreadable::Wrong(format!("under `{source_id}`: {why}"))),
        Err(newer) => Err(newer),
    });
    keys.collect()
}

#[derive(Serialize)]
struct SchemasFile {
    format: u64,
    sources: BTreeMap<String, Vec<Record>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadSchemas {
    #[serde(rename = "format")]
    _format: u64,
    sources: Unique<Vec<Record>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    sequence: u64,
    table: String,
    fingerprint: String,
    at: String,
    registered_at: Time,
    shape: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<Box<RawValue>>,
}

pub(super) fn schemas(sources: &BTreeMap<String, Vec<SchemaRecord>>) -> Result<String, Fault> {
    let mut file = SchemasFile { format: schemas_format(sources), sources: BTreeMap::new() };
    for (source_id, records) in sources {
        let records = records.iter().map(|record| {
            Ok(Record {
                sequence: record.sequence,
                table: record.table.clone(),
                fingerprint: record.fingerprint.clone(),
                at: record.at.to_string(),
                registered_at: Time(record.registered_ms),
                shape: raw(&record.shape)?,
                detail: record.detail.as_deref().map(raw).transpose()?,
            })
        });
        file.sources.insert(source_id.clone(), records.collect::<Result<_, Fault>>()?);
    }
    pretty(&file)
}

/// The format that these records are written in.
pub(super) fn schemas_format(sources: &BTreeMap<String, Vec<SchemaRecord>>) -> u64 {
    let with_detail = sources.values().flatten().any(|record| record.detail.is_some());
    if with_detail { SCHEMAS_FORMAT } else { 1 }
}

pub(super) fn read_schemas(text: &str) -> Result<BTreeMap<String, Vec<SchemaRecord>>, Unreadable> {
    check_format(text, SCHEMAS_FORMAT)?;
    let file: ReadSchemas = from_str(text)?;
    let mut sources = BTreeMap::new();
    for (source_id, records) in file.sources.0 {
        let records = records.into_iter().map(|record| {
            let (sequence, at) = (record.sequence, record.at);
            let at = at
                .parse()
                .map_err(|_| format!("`{source_id}`, schema {sequence}: `at` is `{at}`, not a number"))?;
            Ok(SchemaRecord {
                sequence,
                table: record.table,
                fingerprint: record.fingerprint,
                at,
                shape: record.shape.get().to_owned(),
                detail: record.detail.map(|detail| detail.get().to_owned()),
                registered_ms: record.registered_at.0,
            })
        });
        let records = records.collect::<Result<_, String>>()?;
        sources.insert(source_id, records);
    }
    Ok(sources)
}

#[derive(Serialize)]
struct PipelinesFile {
    format: u64,
    pipelines: BTreeMap<String, Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadPipelines {
    #[serde(rename = "format")]
    _format: u64,
    pipelines: Unique<Box<RawValue>>,
}

pub(super) fn pipelines(documents: &BTreeMap<String, String>) -> Result<String, Fault> {
    let pipelines = documents.iter().map(|(name, json)| Ok((name.clone(), raw(json)?)));
    pretty(&PipelinesFile { format: FORMAT, pipelines: pipelines.collect::<Result<_, Fault>>()? })
}

pub(super) fn read_pipelines(text: &str) -> Result<BTreeMap<String, String>, Unreadable> {
    check_format(text, FORMAT)?;
    let file: ReadPipelines = from_str(text)?;
    Ok(file.pipelines.0.into_iter().map(|(name, json)| (name, json.get().to_owned())).collect())
}

/// Before the rest is looked at: a newer format may hold anything.
fn check_format(text: &str, newest: u64) -> Result<(), Unreadable> {
    #[derive(Deserialize)]
    struct Head {
        format: u64,
    }
    match from_str::<Head>(text)?.format {
        newer if newer > newest => Err(Unreadable::Newer(newer)),
        _ => Ok(()),
    }
}

/// An object in which no name stands twice: a person who edits must not leave two truths of which the last one wins.
struct Unique<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Names<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Names<T> {
            type Value = BTreeMap<String, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((name, value)) = object.next_entry::<String, T>()? {
                    if all.contains_key(&name) {
                        return Err(A::Error::custom(format!("`{name}` stands there twice")));
                    }
                    all.insert(name, value);
                }
                Ok(all)
            }
        }

        from.deserialize_map(Names(std::marker::PhantomData)).map(Unique)
    }
}

fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Unreadable> {
    serde_json::from_str(text).map_err(|e| Unreadable::Wrong(e.to_string()))
}

fn pretty(file: &impl Serialize) -> Result<String, Fault> {
    let mut text =
        serde_json::to_string_pretty(file).map_err(|e| Fault::bug("state.encode", e.to_string()))?;
    text.push('\n');
    Ok(text)
}

fn raw(json: &str) -> Result<Box<RawValue>, Fault> {
    RawValue::from_string(json.to_owned()).map_err(|e| Fault::bug("state.encode", e.to_string()))
}
