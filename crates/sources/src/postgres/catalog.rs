//! What the log does not say of a table: the names of its types, its primary key, which columns may be NULL.
//!
//! Names and types of columns come from the log itself and are right for their place in it; the catalog describes the
//! present and only adds to them. Where the two disagree, the log wins.

use super::connection::{Connection, Purpose, Row, Target};
use super::pgoutput::{Malformed, Relation};
use super::values::Codec;
use super::{Lsn, error};
use deltaforge_core::Fault;
use deltaforge_core::schema::{Column, TableName, TableSchema};
use postgres_protocol::escape::escape_literal;
use std::collections::HashMap;

/// A table's shape as the log gave it, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) identity: u8,
    pub(super) columns: Vec<ShapeColumn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShapeColumn {
    pub(super) key: bool,
    pub(super) name: String,
    pub(super) type_oid: u32,
    pub(super) modifier: i32,
}

impl Shape {
    pub(super) fn of(relation: &Relation<'_>) -> Result<Shape, Malformed> {
        let columns = relation.columns()?.into_iter().map(|c| ShapeColumn {
            key: c.key,
            name: c.name.into(),
            type_oid: c.type_oid,
            modifier: c.modifier,
        });
        let schema = if relation.schema.is_empty() { "pg_catalog" } else { relation.schema };
        Ok(Shape {
            oid: relation.oid,
            schema: schema.into(),
            name: relation.name.into(),
            identity: relation.identity,
            columns: columns.collect(),
        })
    }
}

/// A table ready to be decoded.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) schema: TableSchema,
    pub(super) codecs: Vec<Codec>,
    /// The types that are not built in are as they were here at the earliest.
    pub(super) types_at: Lsn,
}

/// How far the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) head: Lsn,
    pub(super) retained_bytes: Option<i64>,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    pub(super) wal_status: Option<String>,
}

/// A connection for looking things up, made when first needed and again when it was lost.
#[derive(Debug)]
pub(super) struct Catalog {
    target: Target,
    connection: Option<Connection>,
}

impl Catalog {
    pub(super) fn new(target: Target) -> Catalog {
        Catalog { target, connection: None }
    }

    /// Runs a statement; a connection that broke is not used again.
    pub(super) fn query(&mut self, sql: &str, what: &str) -> Result<Vec<Row>, Fault> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.target, Purpose::Query)?),
        };
        let result = connection.query(sql, what);
        if result.as_ref().is_err_and(Fault::is_retry) {
            self.connection = None;
        }
        result
    }

    /// The first column of the first row, which must be there.
    pub(super) fn query_text(&mut self, sql: &str, what: &str) -> Result<String, Fault> {
        let value =
            self.query(sql, what)?.into_iter().next().and_then(|row| row.into_iter().next()).flatten();
        value.ok_or_else(|| error::protocol(&format!("{what}: no answer")))
    }

    /// How far the server is, and how much log it keeps for the slot.
    pub(super) fn observe(&mut self, slot: &str) -> Result<Observation, Fault> {
        let sql = format!(
            "SELECT h.lsn, pg_wal_lsn_diff(h.lsn, s.restart_lsn)::bigint, s.wal_status \
             FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END) h(lsn) \
             LEFT JOIN pg_replication_slots s ON s.slot_name = {}",
            escape_literal(slot)
        );
        let rows = self.query(&sql, "asking how far the server is")?;
        let mut row = rows.into_iter().next().unwrap_or_default().into_iter();
        let mut next = || row.next().flatten();
        let head = next().as_deref().and_then(Lsn::parse).ok_or_else(|| error::protocol("no present LSN"))?;
        Ok(Observation { head, retained_bytes: next().and_then(|n| n.parse().ok()), wal_status: next() })
    }

    /// Describes a table for decoding.
    pub(super) fn describe(&mut self, database: &str, shape: &Shape) -> Result<Described, Fault> {
        let type_oids: Vec<u32> = shape.columns.iter().map(|c| c.type_oid).collect();
        let (types, types_at) = self.types(&type_oids)?;
        let names = self.type_names(shape)?;
        let (keys, not_null) = self.keys(shape.oid)?;
        let column = |(c, type_name): (&ShapeColumn, String)| Column {
            name: c.name.clone(),
            type_name,
            nullable: not_null.get(&c.name).map(|not_null| !not_null),
        };
        let columns = shape.columns.iter().zip(names).map(column).collect();
        let (primary_key, key) = keys.resolve(shape);
        let name = TableName::in_schema(database, &shape.schema, &shape.name);
        let codecs = type_oids.iter().map(|oid| codec(*oid, &types, 0)).collect();
        Ok(Described { schema: TableSchema::new(name, columns, primary_key, key), codecs, types_at })
    }

    /// The columns' types as the server writes them; `oid 4711` for a type that is gone.
    fn type_names(&mut self, shape: &Shape) -> Result<Vec<String>, Fault> {
        let list =
            |f: &dyn Fn(&ShapeColumn) -> String| shape.columns.iter().map(f).collect::<Vec<_>>().join(",");
        let sql = format!(
            "SELECT CASE WHEN EXISTS (SELECT FROM pg_type WHERE oid = t.o) THEN format_type(t.o, t.m) ELSE 'oid ' || t.o END \
             FROM unnest('{{{}}}'::oid[], '{{{}}}'::int[]) WITH ORDINALITY t(o, m, i) ORDER BY t.i",
            list(&|c| c.type_oid.to_string()),
            list(&|c| c.modifier.to_string()),
        );
        let rows = self.query(&sql, "reading type names")?;
        Ok(rows.into_iter().map(|row| row.into_iter().next().flatten().unwrap_or_default()).collect())
    }

    /// The types that are not built in, with those they are made of; and where the log ended before they were read.
    fn types(&mut self, oids: &[u32]) -> Result<(HashMap<u32, Type>, Lsn), Fault> {
        let mut types = HashMap::new();
        let mut wanted: Vec<u32> = oids.iter().copied().filter(|oid| built_in(*oid).is_none()).collect();
        let mut at = Lsn::default();
        if !wanted.is_empty() {
            let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END";
            at = Lsn::parse(&self.query_text(sql, "asking how far the server is")?).unwrap_or_default();
        }
        while !wanted.is_empty() {
            let list = wanted.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            for row in self.query(&TYPES_SQL.replace("$OIDS", &list), "reading types")? {
                if let Some((oid, found)) = Type::of(&row) {
                    types.insert(oid, found);
                }
            }
            let parts = wanted.iter().filter_map(|oid| types.get(oid)).flat_map(Type::parts);
            let mut next: Vec<u32> =
                parts.filter(|oid| built_in(*oid).is_none() && !types.contains_key(oid)).collect();
            next.sort_unstable();
            next.dedup();
            wanted = next;
        }
        Ok((types, at))
    }

    /// The table's keys, and which columns are NOT NULL.
    fn keys(&mut self, oid: u32) -> Result<(Keys, HashMap<String, bool>), Fault> {
        let mut keys = Keys::default();
        for row in self.query(&KEYS_SQL.replace("$OID", &oid.to_string()), "reading keys")? {
            let [Some(kind), Some(index), Some(column)] = row.as_slice() else { continue };
            keys.add(kind, index, column);
        }
        let sql = format!(
            "SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped"
        );
        let nullability =
            self.query(&sql, "reading columns")?.into_iter().filter_map(|row| match row.as_slice() {
                [Some(name), Some(not_null)] => Some((name.clone(), not_null == "t")),
                _ => None,
            });
        Ok((keys, nullability.collect()))
    }
}

/// Per type: kind (`b`ase, `d`omain, `c`omposite, …), element of a true array, base of a domain, members of a composite and
/// whether it never lost one.
const TYPES_SQL: &str = "SELECT t.oid, t.typtype, t.typname, \
    CASE WHEN t.typcategory = 'A' AND t.typlen = -1 AND t.oid NOT IN (22, 30) THEN t.typelem ELSE 0 END, \
    t.typbasetype, \
    COALESCE((SELECT e.typdelim FROM pg_type e WHERE e.oid = t.typelem), ','), \
    (SELECT json_agg(json_build_array(a.attname, a.atttypid::bigint) ORDER BY a.attnum) FROM pg_attribute a \
      WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped), \
    NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND a.attisdropped) \
    FROM pg_type t WHERE t.oid IN ($OIDS)";

/// Per usable key: `p`rimary, `r`eplica identity, `u`nique over NOT NULL columns; the columns in key order.
const KEYS_SQL: &str = "SELECT CASE WHEN i.indisprimary THEN 'p' WHEN i.indisreplident THEN 'r' ELSE 'u' END, \
    i.indexrelid, a.attname \
    FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) \
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
    WHERE i.indrelid = $OID AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND k.n <= i.indnkeyatts \
    AND NOT EXISTS (SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY x(attnum, n) \
      LEFT JOIN pg_attribute y ON y.attrelid = i.indrelid AND y.attnum = x.attnum \
      WHERE x.n <= i.indnkeyatts AND (x.attnum = 0 OR NOT y.attnotnull)) \
    ORDER BY i.indexrelid, k.n";

#[derive(Debug)]
struct Type {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Array(u32, u8),
    Domain(u32),
    Composite { members: Vec<(String, u32)>, only_grew: bool },
    Hstore,
    Other,
}

impl Type {
    fn of(row: &Row) -> Option<(u32, Type)> {
        let text = |i: usize| row.get(i).and_then(Option::as_deref).unwrap_or_default();
        let oid = |i: usize| text(i).parse::<u32>().unwrap_or(0);
        let kind = match (text(1), text(2)) {
            _ if oid(3) != 0 => Kind::Array(oid(3), text(5).bytes().next().unwrap_or(b',')),
            ("d", _) => Kind::Domain(oid(4)),
            ("c", _) => {
                Kind::Composite { members: serde_json::from_str(text(6)).ok()?, only_grew: text(7) == "t" }
            }
            ("b", "hstore") => Kind::Hstore,
            _ => Kind::Other,
        };
        Some((text(0).parse().ok()?, Type { kind }))
    }

    /// OIDs of the types it is made of.
    fn parts(&self) -> Vec<u32> {
        match &self.kind {
            Kind::Array(element, _) => vec![*element],
            Kind::Domain(base) => vec![*base],
            Kind::Composite { members, .. } => members.iter().map(|(_, oid)| *oid).collect(),
            Kind::Hstore | Kind::Other => Vec::new(),
        }
    }
}

/// How values of a type are read. A type that is gone from the catalog is read as text.
fn codec(oid: u32, types: &HashMap<u32, Type>, depth: u32) -> Codec {
    if let Some(codec) = built_in(oid) {
        return codec;
    }
    if depth > 32 {
        return Codec::Text;
    }
    match types.get(&oid).map(|t| &t.kind) {
        Some(Kind::Array(element, delimiter)) => {
            Codec::Array(Box::new(codec(*element, types, depth + 1)), *delimiter)
        }
        Some(Kind::Domain(base)) => codec(*base, types, depth + 1),
        Some(Kind::Composite { members, only_grew }) => {
            let member = |(name, oid): &(String, u32)| (name.clone(), codec(*oid, types, depth + 1));
            Codec::Composite { members: members.iter().map(member).collect(), only_grew: *only_grew }
        }
        Some(Kind::Hstore) => Codec::Hstore,
        Some(Kind::Other) | None => Codec::Text,
    }
}

/// Types whose OIDs are fixed (`pg_type.dat`): those with a form of their own, and common ones given as text, which then need
/// no look-up.
fn built_in(oid: u32) -> Option<Codec> {
    let array = |element| Codec::Array(Box::new(element), b',');
    Some(match oid {
        16 => Codec::Bool,
        20 | 21 | 23 => Codec::Int,
        26 => Codec::Oid,
        700 => Codec::Float4,
        701 => Codec::Float8,
        1700 => Codec::Numeric,
        17 => Codec::Bytea,
        114 | 3802 => Codec::Json,
        2950 => Codec::Uuid,
        1082 => Codec::Date,
        1083 => Codec::Time,
        1266 => Codec::TimeTz,
        1114 => Codec::Timestamp,
        1184 => Codec::TimestampTz,
        1186 => Codec::Interval,
        18 | 19 | 25 | 1042 | 1043 | 790 | 22 | 30 => Codec::Text,
        1000 => array(Codec::Bool),
        1005 | 1007 | 1016 => array(Codec::Int),
        1009 | 1015 => array(Codec::Text),
        _ => return None,
    })
}

/// The unique keys of a table.
#[derive(Debug, Default)]
struct Keys {
    primary: Vec<String>,
    identity: Vec<String>,
    unique: Vec<String>,
    unique_index: String,
}

impl Keys {
    fn add(&mut self, kind: &str, index: &str, column: &str) {
        match kind {
            "p" => self.primary.push(column.into()),
            "r" => self.identity.push(column.into()),
            _ if self.unique.is_empty() || self.unique_index == index => {
                self.unique_index = index.into();
                self.unique.push(column.into());
            }
            _ => {}
        }
    }

    /// Primary key and message key as column indexes of the log's shape.
    fn resolve(&self, shape: &Shape) -> (Vec<u16>, Vec<u16>) {
        let indexes = |names: &[String]| -> Vec<u16> {
            let found: Vec<u16> = names
                .iter()
                .filter_map(|n| shape.columns.iter().position(|c| c.name == *n))
                .map(|i| i as u16)
                .collect();
            // A key with a column that this place of the log does not know is a later key.
            if found.len() == names.len() { found } else { Vec::new() }
        };
        let flagged: Vec<u16> =
            (0..shape.columns.len()).filter(|i| shape.columns[*i].key).map(|i| i as u16).collect();
        let same_set = |key: &[u16]| key.len() == flagged.len() && key.iter().all(|i| flagged.contains(i));
        let mut primary = indexes(&self.primary);
        if shape.identity == b'd' && !same_set(&primary) {
            // With the default identity the flags are the primary key at this place.
            primary.clone_from(&flagged);
        }
        let identity = if shape.identity == b'i' {
            let identity = indexes(&self.identity);
            if same_set(&identity) { identity } else { flagged }
        } else {
            Vec::new()
        };
        let key = [primary.clone(), identity, indexes(&self.unique)].into_iter().find(|k| !k.is_empty());
        (primary, key.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(identity: u8, columns: &[(&str, bool)]) -> Shape {
        let column = |(name, key): &(&str, bool)| ShapeColumn {
            key: *key,
            name: (*name).into(),
            type_oid: 23,
            modifier: -1,
        };
        Shape {
            oid: 1,
            schema: "s".into(),
            name: "t".into(),
            identity,
            columns: columns.iter().map(column).collect(),
        }
    }

    fn keys(primary: &[&str], identity: &[&str], unique: &[&str]) -> Keys {
        let own = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        Keys { primary: own(primary), identity: own(identity), unique: own(unique), unique_index: "1".into() }
    }

    #[test]
    fn keys_follow_the_log_where_the_catalog_disagrees() {
        let abc = |a, b, c| [("a", a), ("b", b), ("c", c)];
        // The catalog gives the order of the primary key's columns.
        let default = shape(b'd', &abc(true, true, false));
        assert_eq!(keys(&["b", "a"], &[], &[]).resolve(&default), (vec![1, 0], vec![1, 0]));
        // The key has changed since: the flags are right.
        assert_eq!(keys(&["c"], &[], &[]).resolve(&default), (vec![0, 1], vec![0, 1]));
        assert_eq!(keys(&["gone"], &[], &[]).resolve(&default), (vec![0, 1], vec![0, 1]));
        let full = shape(b'f', &abc(true, true, true));
        assert_eq!(keys(&["b"], &[], &[]).resolve(&full), (vec![1], vec![1]));
        assert_eq!(keys(&["gone"], &[], &["c"]).resolve(&full), (vec![], vec![2]));
        assert_eq!(keys(&[], &[], &[]).resolve(&full), (vec![], vec![]));
        let index = shape(b'i', &abc(false, false, true));
        assert_eq!(keys(&["a"], &["c"], &[]).resolve(&index), (vec![0], vec![0]));
        assert_eq!(keys(&[], &["c"], &["b"]).resolve(&index), (vec![], vec![2]));
        assert_eq!(
            keys(&[], &["b"], &[]).resolve(&index),
            (vec![], vec![2]),
            "another index than at this place"
        );
    }
}
