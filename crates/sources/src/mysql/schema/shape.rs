//! What is known of a table at one place of the log, and how that is kept in the state store.

use deltaforge_core::fault::Kind;
use deltaforge_core::schema::{Column, SchemaRecord, TableName, TableSchema};
use deltaforge_core::{Class, Fault};
use serde::{Deserialize, Serialize};

/// The columns and keys of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// In the order of the log, which is the table's.
    pub(crate) columns: Vec<ShapeColumn>,
    /// Columns of the primary key, in key order, as indexes into `columns`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) primary_key: Vec<u16>,
    /// Without a primary key: the columns of the unique index over whole NOT NULL columns that the server takes in its place.
    /// With one it is not kept, because nothing needs it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unique_key: Vec<u16>,
    /// Character set of columns that are added without one. `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) charset: Option<String>,
    /// System-versioned (MariaDB): the log has columns of the server's own after the user's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) versioned: bool,
}

/// A column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShapeColumn {
    pub(crate) name: String,
    /// As `information_schema.COLUMNS.COLUMN_TYPE` prints it.
    #[serde(rename = "type")]
    pub(crate) column_type: String,
    /// Of text: the character set's name as `information_schema` prints it today, `utf8mb3` for the old `utf8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) charset: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) nullable: bool,
    /// MariaDB's JSON: text with the check that it is some.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) json: bool,
    /// In the log and nowhere else: what MariaDB keeps for a unique index over long values. Not part of an event.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) hidden: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Shape {
    /// The message key's columns: the primary key's, else the unique index's.
    pub(crate) fn key(&self) -> &[u16] {
        if self.primary_key.is_empty() { &self.unique_key } else { &self.primary_key }
    }

    /// The columns of a sequence of MariaDB, whose rows are not a user's data.
    pub(crate) fn is_sequence(&self) -> bool {
        const COLUMNS: [&str; 8] = [
            "next_not_cached_value",
            "minimum_value",
            "maximum_value",
            "start_value",
            "increment",
            "cache_size",
            "cycle_option",
            "cycle_count",
        ];
        self.columns.iter().map(|column| column.name.as_str()).eq(COLUMNS)
    }
}

/// What a schema record says of a table from its place on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Known {
    /// It has this shape.
    Shape(Shape),
    /// Its rows cannot be told apart for certain any more, so none is given until somebody decides.
    Stopped(Stopped),
    /// It is not there.
    Gone,
}

/// Why and where a table was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    /// One sentence or more; names tables, columns and types, never values.
    pub(crate) reason: String,
    /// `binlog.000042:12345`.
    pub(crate) at: String,
}

impl Known {
    /// What the registry is to keep, with this as its detail.
    pub(crate) fn to_table_schema(&self, db: &str, table: &str) -> TableSchema {
        let name = TableName::in_db(db, table);
        let schema = match self {
            Known::Shape(shape) => {
                let column = |c: &ShapeColumn| Column {
                    name: c.name.clone(),
                    type_name: c.column_type.clone(),
                    nullable: Some(c.nullable),
                };
                let columns = shape.columns.iter().filter(|c| !c.hidden).map(column).collect();
                // Hidden columns come last and are part of no key, so the indexes are the same without them.
                TableSchema::new(name, columns, shape.primary_key.clone(), shape.key().to_vec())
            }
            Known::Stopped(_) | Known::Gone => TableSchema::new(name, Vec::new(), Vec::new(), Vec::new()),
        };
        schema.with_detail(serde_json::to_string(self).unwrap_or_default())
    }

    /// What a record says.
    ///
    /// # Errors
    /// `mysql.schema_record` (Config) for a record that this connector did not write, or whose keys name columns that it does
    /// not have.
    pub(crate) fn from_record(record: &SchemaRecord) -> Result<Known, Fault> {
        let wrong = |why: &str| {
            let (number, table) = (record.sequence, &record.table);
            let message =
                format!("schema {number} in the state store, of table {table}, does not read: {why}");
            Fault::new(Class::Config, "mysql.schema_record", message)
                .kind(Kind::Schema)
                .hint("restore the state store from a backup; or stop the pipeline, DELETE /checkpoints/NAME and start it again, which begins as `start_position` says")
        };
        let detail = record.detail.as_deref().ok_or_else(|| wrong("it has no detail"))?;
        let known: Known = serde_json::from_str(detail).map_err(|e| wrong(&e.to_string()))?;
        if let Known::Shape(shape) = &known {
            let visible = shape.columns.iter().take_while(|column| !column.hidden).count();
            let mut keys = shape.primary_key.iter().chain(&shape.unique_key);
            if keys.any(|at| usize::from(*at) >= visible) {
                return Err(wrong("a key has a column that the table has not"));
            }
            if shape.columns.iter().skip(visible).any(|column| !column.hidden) {
                return Err(wrong("a hidden column is not the last"));
            }
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]
    use super::*;
    use deltaforge_core::schema::{SchemaLog, SchemaRegistry};

    fn shape() -> Shape {
        let column = |name: &str, column_type: &str| ShapeColumn {
            name: name.into(),
            column_type: column_type.into(),
            ..ShapeColumn::default()
        };
        let mut note = column("note", "varchar(20)");
        note.charset = Some("latin1".into());
        note.nullable = true;
        let mut doc = column("doc", "longtext");
        doc.json = true;
        Shape {
            columns: vec![column("id", "int unsigned"), note, doc],
            unique_key: vec![0],
            charset: Some("utf8mb4".into()),
            ..Shape::default()
        }
    }

    fn stored(known: &Known) -> SchemaRecord {
        let log = SchemaLog::default();
        log.register(&known.to_table_schema("shop", "t"), 5);
        log.in_force("shop.t", 5).unwrap()
    }

    #[test]
    fn a_record_gives_back_what_was_stored() {
        let stopped = Stopped { reason: "2 columns, 3 in the log".into(), at: "binlog.000002:154".into() };
        for known in [Known::Shape(shape()), Known::Stopped(stopped), Known::Gone] {
            let record = stored(&known);
            assert_eq!(Known::from_record(&record).unwrap(), known, "{:?}", record.detail);
        }
        let detail = stored(&Known::Shape(shape())).detail.unwrap();
        let expected = r#"{"shape":{"columns":[{"name":"id","type":"int unsigned"},{"name":"note","type":"varchar(20)","charset":"latin1","nullable":true},{"name":"doc","type":"longtext","json":true}],"unique_key":[0],"charset":"utf8mb4"}}"#;
        assert_eq!(detail, expected, "stores hold this form: it may only be added to");
    }

    #[test]
    fn what_does_not_read_is_refused() {
        for detail in [
            None,
            Some("{}"),
            Some(r#"{"shape":{}}"#),
            Some(r#"{"shape":{"columns":[],"primary_key":[0]}}"#),
            Some(r#"{"shape":{"columns":[{"name":"a"}]}}"#),
            Some("[]"),
        ] {
            let mut record = stored(&Known::Gone);
            record.detail = detail.map(String::from);
            let fault = Known::from_record(&record).unwrap_err();
            assert_eq!(fault.code(), "mysql.schema_record", "{detail:?}");
            assert!(fault.message().contains("schema 1 in the state store, of table shop.t"), "{fault}");
        }
    }

    #[test]
    fn the_schema_of_events_has_the_servers_types_and_the_key() {
        let schema = Known::Shape(shape()).to_table_schema("shop", "t");
        assert_eq!(schema.name.full(), "shop.t");
        assert_eq!(schema.columns[1].type_name, "varchar(20)");
        assert_eq!(schema.columns[1].nullable, Some(true));
        assert_eq!((schema.primary_key.as_slice(), schema.key.as_slice()), (&[][..], &[0][..]));
        let other = Known::Shape(Shape { unique_key: vec![], ..shape() }).to_table_schema("shop", "t");
        assert_eq!(other.fingerprint, schema.fingerprint);
        assert_ne!(other.detail, schema.detail);
    }

    #[test]
    fn hidden_columns_are_no_part_of_events() {
        let mut shape = shape();
        shape.columns.push(ShapeColumn {
            name: "DB_ROW_HASH_1".into(),
            hidden: true,
            ..ShapeColumn::default()
        });
        assert_eq!(Known::Shape(shape.clone()).to_table_schema("shop", "t").columns.len(), 3);
        assert_eq!(
            Known::from_record(&stored(&Known::Shape(shape.clone()))).unwrap(),
            Known::Shape(shape.clone())
        );
        shape.columns.swap(2, 3);
        assert!(Known::from_record(&stored(&Known::Shape(shape))).is_err());
    }
}
