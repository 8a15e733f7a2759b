//! TABLE_MAP against the catalog: they agree where nothing has changed, and what the log tells in full is what the catalog has.

use super::super::agree::{agree, from_metadata};
use super::super::shape::{Shape, ShapeColumn};
use super::{Mapped, Server, catalog};
use crate::mysql::binlog::Metadata;
use deltaforge_testkit::servers::Flavour;

/// Tables with a column of each type, and one row that all of them take.
const BOTH: &[&str] = &[
    "CREATE TABLE t1 (id INT UNSIGNED PRIMARY KEY, a TINYINT, b SMALLINT UNSIGNED, c MEDIUMINT, d BIGINT UNSIGNED NOT NULL, e DECIMAL(30,10), f DECIMAL(5,0) UNSIGNED, g FLOAT, h DOUBLE UNSIGNED, i BIT(1), j BIT(64), k YEAR)",
    "CREATE TABLE t2 (id INT PRIMARY KEY, a DATE, b TIME, c TIME(6), d DATETIME, e DATETIME(3), f TIMESTAMP NULL, g TIMESTAMP(1) NULL)",
    "CREATE TABLE t3 (a CHAR(10), b CHAR(255), c VARCHAR(16000), d VARCHAR(10) CHARACTER SET latin1, e TINYTEXT, f TEXT CHARACTER SET gbk, g MEDIUMTEXT, h LONGTEXT, i CHAR(3) CHARACTER SET utf16, j VARCHAR(7) CHARACTER SET sjis, k CHAR(0))",
    "CREATE TABLE t4 (a BINARY(5) NOT NULL, b VARBINARY(999), c TINYBLOB, d BLOB, e MEDIUMBLOB, f LONGBLOB, UNIQUE (a))",
    "CREATE TABLE t5 (a ENUM('a','it''s','b\\\\s','x,y','','ä'), b SET('a','b','c','d','e','f','g','h','i'), c ENUM('ä','€') CHARACTER SET latin1, d SET('x') CHARACTER SET ucs2)",
    "CREATE TABLE t6 (a GEOMETRY, b POINT, c LINESTRING, d POLYGON, e MULTIPOINT, f MULTILINESTRING, g MULTIPOLYGON, h GEOMETRYCOLLECTION)",
    "CREATE TABLE t7 (id INT, `B b` VARCHAR(20), c INT AS (id + 1) VIRTUAL, d INT AS (id + 2) STORED, PRIMARY KEY (`B b`(5), id))",
    "CREATE TABLE t8 (a INT NOT NULL, b INT NOT NULL, c INT, UNIQUE zz (b, a), UNIQUE yy (c))",
];
const MYSQL: &[&str] = &[
    "CREATE TABLE m1 (id INT PRIMARY KEY, j JSON, v VECTOR(3), w VECTOR, i INT INVISIBLE, k BINARY(16), l VARBINARY(12), INDEX ((id + 1)))",
];
const MARIADB: &[&str] = &[
    "CREATE TABLE m1 (id INT PRIMARY KEY, j JSON, k VARCHAR(9) COMPRESSED, l VARBINARY(300) COMPRESSED, m TEXT COMPRESSED, n LONGBLOB COMPRESSED)",
    "CREATE TABLE m2 (id INT PRIMARY KEY, b TEXT, c VARCHAR(3000) NOT NULL, UNIQUE (b), UNIQUE k2 (c))",
    "CREATE TABLE m3 (id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING",
    "CREATE TABLE m4 (id INT, b TEXT UNIQUE) WITH SYSTEM VERSIONING",
    "CREATE TABLE m5 (id INT PRIMARY KEY, rs TIMESTAMP(6) GENERATED ALWAYS AS ROW START INVISIBLE, re TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (rs, re)) WITH SYSTEM VERSIONING",
    "CREATE TABLE m6 (a UUID, b INET6, c INET4, d BINARY(16), e BINARY(4), f CHAR(16) CHARACTER SET latin1)",
];

/// Makes the tables, writes a row into each, and gives what the log says of them beside their shapes.
fn mapped(server: &mut Server) -> Vec<(Mapped, Shape)> {
    let own = if server.mysqld.flavour() == Flavour::MySql { MYSQL } else { MARIADB };
    let mut session = server.mysqld.session(&server.db);
    session.sql("SET SESSION sql_mode = ''");
    for sql in BOTH.iter().chain(own) {
        session.sql(sql);
        let name = sql.split_whitespace().nth(2).unwrap();
        session.sql(&format!("INSERT INTO {name} () VALUES ()"));
    }
    let maps = server.log().1;
    let mut shapes = server.shapes();
    assert_eq!(maps.len(), shapes.len());
    maps.into_iter()
        .map(|map| {
            let shape = shapes.remove(&map.table).unwrap();
            (map, shape)
        })
        .collect()
}

#[test]
fn the_log_agrees_with_the_catalog() {
    for flavour in Flavour::available() {
        for metadata in ["FULL", "MINIMAL"] {
            let mut server = Server::start(flavour, &[&format!("--binlog-row-metadata={metadata}")]);
            let collations = server.collations();
            for (map, shape) in mapped(&mut server) {
                assert_eq!(map.metadata.is_full(), metadata == "FULL");
                let agreed = agree(&shape, &map.columns, &map.metadata, &collations);
                assert_eq!(agreed, Ok(()), "{} {}", flavour.name(), map.table.table);
                // With nothing beside the types, too.
                assert_eq!(agree(&shape, &map.columns, &Metadata::default(), &collations), Ok(()));
                for (other, what) in disturbed(&shape, map.metadata.is_full()) {
                    let differs = agree(&other, &map.columns, &map.metadata, &collations);
                    assert!(differs.is_err(), "{} {}: {what}", flavour.name(), map.table.table);
                }
            }
        }
    }
}

/// The shape with one thing changed that the log must tell.
fn disturbed(shape: &Shape, full: bool) -> Vec<(Shape, String)> {
    let mut out = Vec::new();
    let mut add = |change: &dyn Fn(&mut Shape), what: String| {
        let mut other = shape.clone();
        change(&mut other);
        out.push((other, what));
    };
    add(&|s| drop(s.columns.pop()), "one column less".into());
    add(
        &|s| s.columns.insert(0, ShapeColumn { column_type: "int".into(), ..Default::default() }),
        "one more".into(),
    );
    for (at, column) in shape.columns.iter().enumerate().filter(|(_, column)| !column.hidden) {
        let name = &column.name;
        add(&|s| s.columns[at].nullable ^= true, format!("{name} nullable"));
        add(&|s| s.columns[at].column_type = "hologram".into(), format!("{name} unknown"));
        let is_number = ["int", "decimal", "float", "double"].iter().any(|t| column.column_type.contains(t));
        if is_number && !column.column_type.contains("point") {
            let other = match column.column_type.strip_suffix(" unsigned") {
                Some(signed) => signed.to_owned(),
                None => format!("{} unsigned", column.column_type),
            };
            add(&|s| s.columns[at].column_type.clone_from(&other), format!("{name} signed"));
        }
        if full {
            add(&|s| s.columns[at].name.push('x'), format!("{name} renamed"));
            if let Some(at_quote) = column.column_type.find('\'') {
                let mut other = column.column_type.clone();
                other.insert(at_quote + 1, 'z');
                add(&|s| s.columns[at].column_type.clone_from(&other), format!("{name} labels"));
            }
        }
    }
    if full && !shape.key().is_empty() {
        add(
            &|s| {
                s.primary_key.clear();
                s.unique_key.clear();
            },
            "no key".into(),
        );
    }
    out
}

#[test]
fn the_full_metadata_tells_what_the_catalog_has() {
    for flavour in Flavour::available() {
        let mut server = Server::start(flavour, &[]);
        let collations = server.collations();
        let version = catalog::defaults(&mut server.connection).unwrap().version;
        for (map, shape) in mapped(&mut server) {
            let name = format!("{} {}", flavour.name(), map.table.table);
            let told = from_metadata(&map.columns, &map.metadata, &collations, &version, &[&shape]).unwrap();
            // A unique index that stands for the primary key is told as that.
            let mut expected = shape.clone();
            if expected.primary_key.is_empty() {
                expected.primary_key = std::mem::take(&mut expected.unique_key);
            }
            assert_eq!(told, expected, "{name}");
            let alone = from_metadata(&map.columns, &map.metadata, &collations, &version, &[]);
            if flavour == Flavour::MariaDb && map.table.table == "m6" {
                assert!(
                    alone
                        .unwrap_err()
                        .contains("column a: the log does not tell whether it is of type BINARY, UUID")
                );
                continue;
            }
            let mut alone = alone.unwrap();
            alone.charset.clone_from(&expected.charset);
            // Whether text is MariaDB's JSON is not in the log.
            expected.columns.iter_mut().for_each(|column| column.json = false);
            expected.versioned &= alone.versioned;
            assert_eq!(alone, expected, "{name}");
        }
    }
}
