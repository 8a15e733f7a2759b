//! Each statement is run, read back from the log and taken in; then every table must look as the server says. What is not
//! understood is allowed, what is wrong is not.

use super::super::statement::{Context, classify};
use super::super::tables::{Held, Tables};
use super::{Server, catalog};
use crate::mysql::flavour;
use deltaforge_testkit::servers::Flavour;

/// For both servers.
const BOTH: &str = "
CREATE TABLE a (id INT PRIMARY KEY, x INT)
CREATE TABLE b (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, name VARCHAR(50) NOT NULL DEFAULT 'x', PRIMARY KEY (id), KEY (name)) ENGINE=InnoDB DEFAULT CHARSET=latin1
ALTER TABLE a ADD COLUMN y VARCHAR(20)
ALTER TABLE a ADD COLUMN z TEXT FIRST
ALTER TABLE a ADD COLUMN w DECIMAL(10,2) UNSIGNED NOT NULL DEFAULT '0.00' COMMENT 'it''s, (odd)' AFTER id
ALTER TABLE a ADD q INT, ADD r INT AFTER x, ADD s INT FIRST
ALTER TABLE a ADD (t1 INT, t2 VARCHAR(5) NOT NULL)
ALTER TABLE a DROP COLUMN q, DROP r
ALTER TABLE a MODIFY y VARCHAR(40) NOT NULL
ALTER TABLE a MODIFY COLUMN y VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_bin NULL AFTER s
ALTER TABLE a CHANGE y yy CHAR(10)
ALTER TABLE a CHANGE COLUMN yy y2 CHAR(10) ASCII FIRST
ALTER TABLE a RENAME COLUMN x TO xx
ALTER TABLE a RENAME COLUMN xx TO x, RENAME COLUMN s TO ss
ALTER TABLE a RENAME COLUMN x TO ss, RENAME COLUMN ss TO x
ALTER TABLE a ALTER COLUMN w SET DEFAULT 1, ALTER ss SET DEFAULT 2
ALTER TABLE a ALTER w DROP DEFAULT, ALTER COLUMN ss DROP DEFAULT
ALTER TABLE a DROP COLUMN z, ADD COLUMN z2 INT FIRST, MODIFY COLUMN x BIGINT AFTER z2, ADD COLUMN last INT AFTER x
ALTER TABLE a ENGINE=InnoDB
ALTER TABLE a ENGINE=InnoDB, COMMENT='x, y', ALGORITHM=COPY
ALTER TABLE a ADD INDEX (x), ADD UNIQUE KEY u1 (w), ADD FULLTEXT INDEX ft (y2)
ALTER TABLE a DROP INDEX u1, DROP KEY ft
ALTER TABLE a RENAME INDEX x TO xi
CREATE INDEX i2 ON a (w)
CREATE UNIQUE INDEX i3 ON a (id, w)
DROP INDEX i2 ON a
ALTER TABLE a DROP PRIMARY KEY, ADD PRIMARY KEY (id, w)
ALTER TABLE a ORDER BY x DESC, id
ALTER TABLE a FORCE
ALTER TABLE a AUTO_INCREMENT = 100, ROW_FORMAT=DYNAMIC
ALTER TABLE a DEFAULT CHARACTER SET latin2, ADD l1 VARCHAR(5), ADD l2 VARCHAR(5) CHARACTER SET utf8mb4
ALTER TABLE a ADD l3 VARCHAR(5), DEFAULT CHARSET=koi8r COLLATE koi8r_bin
ALTER TABLE a COLLATE utf8mb4_bin
ALTER TABLE a ADD l4 ENUM('a','b')
ALTER TABLE a CONVERT TO CHARACTER SET utf8mb4
ALTER TABLE b ADD c1 TINYTEXT, ADD c2 TEXT, ADD c3 MEDIUMTEXT, ADD c4 LONGTEXT, ADD c5 SET('x','y'), ADD c6 VARBINARY(5)
ALTER TABLE b CONVERT TO CHARACTER SET utf8mb4
ALTER TABLE b CONVERT TO CHARACTER SET latin1 COLLATE latin1_german1_ci
ALTER TABLE b CONVERT TO CHARACTER SET utf8mb3
ALTER TABLE b ALTER INDEX name INVISIBLE -- mysql
CREATE TABLE c LIKE a
ALTER TABLE c ADD COLUMN new INT AFTER id
RENAME TABLE a TO a_old, c TO a
DROP TABLE a_old
ALTER TABLE a RENAME TO a2
ALTER TABLE a2 RENAME a, ADD COLUMN n2 INT
CREATE TABLE d AS SELECT id, w, y2 FROM a
CREATE TABLE IF NOT EXISTS d (nothing INT)
CREATE TABLE e (a TINYINT, b SMALLINT UNSIGNED, c MEDIUMINT ZEROFILL, d INT(5), e INTEGER(7) UNSIGNED, f BIGINT, g TINYINT(1), h BOOL, i BOOLEAN, j INT(3) ZEROFILL, k TINYINT(1) UNSIGNED, l INT SIGNED)
CREATE TABLE e2 (a INT1, b INT2, c INT3, d INT4, e INT8, f MIDDLEINT, g SERIAL)
CREATE TABLE f (a DECIMAL, b DEC(5), c NUMERIC(7,3) UNSIGNED ZEROFILL, d FIXED, e FLOAT, f FLOAT(7,4), g FLOAT(20), h FLOAT(40), i DOUBLE, j DOUBLE PRECISION, k DOUBLE(8,2) UNSIGNED, l REAL, m FLOAT4, n FLOAT8, o FLOAT(0), p FLOAT UNSIGNED ZEROFILL)
CREATE TABLE g (a DATE, b TIME, c TIME(3), d DATETIME, e DATETIME(6), f TIMESTAMP, g TIMESTAMP(2) NULL, h TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, i YEAR, j YEAR(4), k DATETIME(0) DEFAULT NOW(), l TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))
CREATE TABLE h (a CHAR, b CHAR(5), c VARCHAR(5), d CHARACTER(3), e CHARACTER VARYING(4), f CHAR VARYING(4), g VARCHARACTER(6), h NCHAR, i NCHAR(5), j NATIONAL CHAR(5), k NATIONAL VARCHAR(5), l NVARCHAR(5), m NCHAR VARCHAR(5), n NATIONAL CHARACTER VARYING(5), o CHAR BYTE, p VARCHAR(5) BYTE, q VARCHAR(5) BINARY, r VARCHAR(5) UNICODE, s VARCHAR(5) CHARACTER SET binary, t CHAR(0), u CHAR(255), v CHAR(5) CHARSET sjis, w VARCHAR(5) CHAR SET gbk)
CREATE TABLE i (a BINARY, b BINARY(16), c VARBINARY(300), d TINYBLOB, e BLOB, f MEDIUMBLOB, g LONGBLOB, h BLOB(10), i BLOB(256), j BLOB(65536), k BLOB(16777216), l LONG VARBINARY)
CREATE TABLE j (a TINYTEXT, b TEXT, c MEDIUMTEXT, d LONGTEXT, e TEXT(10), f TEXT(63), g TEXT(64), h TEXT(16383), i TEXT(16384), j LONG, k LONG VARCHAR, l TEXT CHARACTER SET latin1, m TEXT(255) CHARACTER SET latin1, n TEXT CHARACTER SET binary, o TINYTEXT COLLATE ascii_bin, p LONGTEXT BINARY)
CREATE TABLE k (a ENUM('a','it''s','b\\\\s','x,y','trail  ',''), b SET('a','b(','c)'), c ENUM('ä','ß') CHARACTER SET latin1, d ENUM(\"dq\") COLLATE latin1_bin, e BIT, f BIT(8), g BIT(64), h JSON)
CREATE TABLE l (a POINT, b GEOMETRY, c LINESTRING, d POLYGON, e MULTIPOINT, f MULTILINESTRING, g MULTIPOLYGON, h GEOMETRYCOLLECTION)
CREATE TABLE m (id INT, g1 INT GENERATED ALWAYS AS (id + 1) VIRTUAL, g2 INT AS (id * (2 + 1)) STORED, g3 VARCHAR(10) AS (CONCAT('a', ')', id)), PRIMARY KEY (id))
CREATE TABLE n (a INT NOT NULL, b INT NOT NULL, c INT, UNIQUE KEY u2 (c), UNIQUE KEY u1 (b), UNIQUE u0 (a))
CREATE TABLE n2 (a INT NOT NULL UNIQUE, b INT UNIQUE KEY)
CREATE TABLE n3 (a VARCHAR(20) NOT NULL, b INT NOT NULL, UNIQUE (a(5)), UNIQUE (b, a))
CREATE TABLE n4 (a INT KEY, b INT)
CREATE TABLE n5 (a INT, b INT, CONSTRAINT pk PRIMARY KEY USING BTREE (b DESC, a) COMMENT 'x')
CREATE TABLE n6 (a INT, b INT)
ALTER TABLE n6 ADD c INT
ALTER TABLE n6 ADD PRIMARY KEY (b)
ALTER TABLE n6 DROP PRIMARY KEY
ALTER TABLE n6 ADD id INT AUTO_INCREMENT PRIMARY KEY FIRST
ALTER TABLE n MODIFY b INT NULL
ALTER TABLE n DROP INDEX u0
ALTER TABLE n5 DROP COLUMN a -- mysql
CREATE TABLE p (id INT NOT NULL, at DATE NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (YEAR(at)) (PARTITION p0 VALUES LESS THAN (2020), PARTITION p1 VALUES LESS THAN MAXVALUE)
ALTER TABLE p TRUNCATE PARTITION p0
ALTER TABLE p REORGANIZE PARTITION p1 INTO (PARTITION p1 VALUES LESS THAN (2030), PARTITION p2 VALUES LESS THAN MAXVALUE)
ALTER TABLE p DROP PARTITION p0, p1
ALTER TABLE p REMOVE PARTITIONING
ALTER TABLE p ADD COLUMN note VARCHAR(10) PARTITION BY HASH (id) PARTITIONS 2
ALTER TABLE p PARTITION BY KEY (id)
CREATE TABLE q (id INT PRIMARY KEY, parent INT, amount INT CHECK (amount > 0), CONSTRAINT fk FOREIGN KEY (parent) REFERENCES q (id) ON DELETE CASCADE ON UPDATE SET NULL, CHECK (amount < 1000))
ALTER TABLE q DROP FOREIGN KEY fk
ALTER TABLE q ADD CONSTRAINT fk2 FOREIGN KEY (parent) REFERENCES q (id), ADD CONSTRAINT c2 CHECK (amount <> 5)
ALTER TABLE q DROP CONSTRAINT c2
ALTER TABLE q ADD COLUMN r INT REFERENCES q (id), ADD COLUMN d DATETIME DEFAULT '2020-01-01 00:00:00' NOT NULL
CREATE TABLE r (a INT DEFAULT 5, b VARCHAR(10) DEFAULT 'a,b', c BIT(4) DEFAULT b'0101', d BINARY(2) DEFAULT X'0001', e INT DEFAULT -3, f DOUBLE DEFAULT 1e5, g VARCHAR(36) DEFAULT (UUID()), h INT DEFAULT (1 + 2), i TEXT DEFAULT ('x'), j BOOL DEFAULT TRUE, k VARCHAR(5) DEFAULT _latin1'x' COLLATE latin1_bin, l INT NOT NULL DEFAULT '7' COMMENT 'x') COMMENT='t, PRIMARY KEY' CHARACTER SET utf8mb4
/* c */ ALTER /* d */ TABLE -- e⏎ b ADD COLUMN after_comment INT # f
create table `odd ``name` (`select` int, `a``b` int, `ünï` int, `1` int, primary key (`select`))
alter table `odd ``name` add column `from` int after `a``b`, drop `1`
ALTER TABLE `odd ``name` RENAME COLUMN `ünï` TO `Ünï2`
/*!50000 CREATE TABLE s (a INT */ /*!40000 , b INT */ /*!999999 , c INT */ )
CREATE TABLE u (A INT, b INT)
ALTER TABLE u MODIFY a BIGINT, ADD C INT AFTER B
ALTER TABLE u DROP COLUMN IF EXISTS nope -- mariadb
ALTER TABLE u ADD UNIQUE (b), ADD PRIMARY KEY (A)
ALTER TABLE u ALGORITHM=INPLACE, LOCK=NONE, ADD COLUMN inst INT
ALTER TABLE u COMMENT 'x', ADD COLUMN ck INT CHECK (ck > 0)
ALTER TABLE u DISABLE KEYS
TRUNCATE TABLE u
DROP TABLE IF EXISTS u, s, nope
CREATE TEMPORARY TABLE temp (a INT)
CREATE VIEW v AS SELECT 1 AS a
DROP VIEW v
CREATE TABLE vv (a VARCHAR(100)) CHARSET utf8
ALTER TABLE vv ADD b VARCHAR(100) CHARACTER SET utf8 COLLATE utf8_bin
CREATE TABLE ww (a VARCHAR(100)) COLLATE=latin7_bin
ALTER TABLE ww ADD b VARCHAR(5) COLLATE utf8mb4_general_ci, MODIFY a VARCHAR(10)
ALTER TABLE ww ADD b2 VARCHAR(5) AFTER a, CHANGE b c VARCHAR(7) FIRST, ADD d INT AFTER c
ALTER DATABASE CHARACTER SET latin1
CREATE TABLE xx (a VARCHAR(5))
ALTER TABLE xx CONVERT TO CHARACTER SET DEFAULT
ALTER DATABASE COLLATE utf8mb4_bin
CREATE TABLE yy (a VARCHAR(5), b TEXT)
DROP TABLE xx, yy
";

const MYSQL: &str = "
CREATE TABLE my1 (id INT PRIMARY KEY, v VARCHAR(5) INVISIBLE, w INT VISIBLE, x POINT NOT NULL SRID 4326, y VECTOR(3), z VECTOR, g GEOMCOLLECTION, f INT COLUMN_FORMAT DYNAMIC STORAGE DISK)
ALTER TABLE my1 ALTER COLUMN w SET INVISIBLE
ALTER TABLE my1 ADD INDEX ((w + 1)), ADD UNIQUE INDEX ((w + 2))
ALTER TABLE my1 ADD COLUMN j JSON DEFAULT (JSON_ARRAY()), ADD INDEX mv ((CAST(j AS UNSIGNED ARRAY)))
ALTER TABLE my1 ADD CHECK (w > 0) NOT ENFORCED
ALTER TABLE my1 ALTER CHECK my1_chk_1 ENFORCED
ALTER TABLE my1 DROP CHECK my1_chk_1
CREATE TABLE my3 (a INT, PRIMARY KEY (a)) TABLESPACE innodb_system
ALTER TABLE my3 ADD COLUMN b INT DEFAULT ((1 + 2) * 3), ALGORITHM=COPY
CREATE TABLE my2 (a INT)
ALTER TABLE my2 ADD COLUMN b INT DEFAULT 7 FIRST, ALGORITHM=INSTANT
ALTER TABLE my3 RENAME COLUMN a TO pk
SET SESSION sql_generate_invisible_primary_key = ON
CREATE TABLE my4 (a INT)
SET SESSION sql_generate_invisible_primary_key = OFF
ALTER TABLE my4 ALTER COLUMN my_row_id SET VISIBLE
SET SESSION explicit_defaults_for_timestamp = OFF
SET SESSION sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'
CREATE TABLE \"my5\" (\"a\" VARCHAR(10) DEFAULT 'a\\', b INT)
ALTER TABLE \"my5\" ADD COLUMN \"c d\" ENUM('x\\','y''') AFTER \"a\"
SET SESSION sql_mode = 'REAL_AS_FLOAT'
CREATE TABLE my6 (a REAL)
SET SESSION sql_mode = DEFAULT
";

const MARIADB: &str = "
CREATE TABLE ma1 (id INT PRIMARY KEY, j JSON, k LONGTEXT CHECK (JSON_VALID(`k`)), l JSON CHECK (LENGTH(l) < 100), u UUID, i INET6, i4 INET4)
ALTER TABLE ma1 ADD COLUMN j2 JSON DEFAULT '{}' AFTER id
ALTER TABLE ma1 MODIFY k LONGTEXT
ALTER TABLE ma1 CHANGE j jj JSON NOT NULL
ALTER TABLE ma1 ADD COLUMN IF NOT EXISTS id INT, ADD COLUMN IF NOT EXISTS n INT, DROP COLUMN IF EXISTS gone
ALTER TABLE IF EXISTS nope ADD a INT
ALTER TABLE ma1 MODIFY COLUMN IF EXISTS gone INT, CHANGE COLUMN IF EXISTS gone2 x INT, RENAME COLUMN IF EXISTS gone3 TO y
ALTER TABLE ma1 ADD COLUMN c1 VARCHAR(100) COMPRESSED, ADD c2 TEXT COMPRESSED NOT NULL, ADD c3 BLOB COMPRESSED
ALTER TABLE ma1 CONVERT TO CHARACTER SET latin1
ALTER TABLE ma1 DROP CONSTRAINT IF EXISTS nope
CREATE TABLE ma2 (id INT, b TEXT, UNIQUE (b))
ALTER TABLE ma2 ADD COLUMN c INT
ALTER TABLE ma2 ADD COLUMN d INT AFTER id
ALTER TABLE ma2 DROP INDEX b
CREATE TABLE ma3 (id INT PRIMARY KEY, b VARCHAR(2000))
ALTER TABLE ma3 ADD UNIQUE (b)
ALTER TABLE ma3 ADD COLUMN x INT
CREATE TABLE ma4 (id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING
SET SESSION system_versioning_alter_history = KEEP
ALTER TABLE ma4 ADD COLUMN b INT
ALTER TABLE ma4 DROP SYSTEM VERSIONING
ALTER TABLE ma4 ADD SYSTEM VERSIONING
ALTER TABLE ma4 ADD COLUMN w INT WITHOUT SYSTEM VERSIONING
CREATE TABLE ma5 (id INT, s DATE, e DATE, PERIOD FOR p (s, e), UNIQUE (id, p WITHOUT OVERLAPS))
CREATE OR REPLACE TABLE ma5 (id INT UNSIGNED PRIMARY KEY)
CREATE OR REPLACE TABLE ma5 SELECT 1 AS one
SET STATEMENT max_statement_time = 10 FOR ALTER TABLE ma5 ADD COLUMN b INT
CREATE SEQUENCE seq
ALTER SEQUENCE seq RESTART 50
RENAME TABLE seq TO seq2
DROP SEQUENCE seq2
CREATE TABLE ma6 (id INT PRIMARY KEY, v INT INVISIBLE DEFAULT 1, p INT AS (id + 1) PERSISTENT, r POINT REF_SYSTEM_ID=101)
ALTER TABLE ma6 ADD CONSTRAINT cc CHECK (JSON_VALID(v))
ALTER TABLE ma6 DROP CONSTRAINT cc
ALTER ONLINE TABLE ma6 WAIT 5 ADD COLUMN o INT
ALTER TABLE ma6 ADD y2 YEAR(2), ADD z INT(3) ZEROFILL
CREATE INDEX IF NOT EXISTS i ON ma6 (v)
DROP INDEX IF EXISTS i ON ma6
RENAME TABLE IF EXISTS nope TO nope2, ma6 TO ma7
DROP TABLE ma7
SET SESSION sql_mode = 'ORACLE'
CREATE TABLE ma8 (a VARCHAR2(10), b NUMBER(5))
SET SESSION sql_mode = DEFAULT
CREATE TABLE ma9 (a INT) CHARSET utf8mb4 COLLATE utf8mb4_nopad_bin
";

#[derive(Default)]
struct Counts {
    understood: usize,
    unknown: Vec<String>,
}

#[test]
fn statements_give_the_shapes_that_servers_have() {
    for flavour in Flavour::available() {
        let mut server = Server::start(flavour, &[]);
        let (own, foreign) = match flavour {
            Flavour::MySql => (MYSQL, " -- mariadb"),
            Flavour::MariaDb => (MARIADB, " -- mysql"),
        };
        let lines =
            BOTH.lines().chain(own.lines()).filter(|line| !line.is_empty() && !line.ends_with(foreign));
        let plain = |line: &str| line.replace(" -- mysql", "").replace(" -- mariadb", "").replace('⏎', "\n");
        let statements: Vec<String> = lines.map(plain).collect();
        let counts = run(&mut server, &statements);
        let all = counts.understood + counts.unknown.len();
        eprintln!(
            "{} {}: {} changes, {} understood; not understood:\n{}",
            flavour.name(),
            server.mysqld.version(),
            all,
            counts.understood,
            counts.unknown.join("\n")
        );
        assert!(counts.understood * 10 >= all * 8, "{} of {all} understood", counts.understood);
    }
}

fn run(server: &mut Server, statements: &[String]) -> Counts {
    let defaults = catalog::defaults(&mut server.connection).unwrap();
    let charsets = catalog::database_charsets(&mut server.connection).unwrap();
    let mut tables = Tables::new(charsets);
    let mut session = server.mysqld.session(&server.db);
    let mut counts = Counts::default();
    for sql in statements {
        session.sql(sql);
        let mut touched = Vec::new();
        for logged in server.log().0 {
            let context = Context {
                flavour: if server.mysqld.flavour() == Flavour::MySql {
                    flavour::Flavour::MySql
                } else {
                    flavour::Flavour::MariaDb
                },
                database: &logged.db,
                sql_mode: logged.sql_mode,
                fold_names: false,
            };
            let statement = classify(&logged.sql, &context);
            touched.extend(tables.apply(&statement, &logged.sql, &context, &defaults));
        }
        let actual = server.shapes();
        touched.sort();
        touched.dedup();
        for table in &touched {
            match tables.get(table) {
                Some(Held::Unknown) => counts.unknown.push(format!("  {}: {sql}", table.table)),
                _ => counts.understood += 1,
            }
        }
        for (table, shape) in &actual {
            match tables.get(table) {
                Some(Held::Shape(known)) => assert_eq!(known, shape, "{} after {sql}", table.table),
                Some(Held::Unknown) => tables.set(table.clone(), Held::Shape(shape.clone())),
                None => panic!("nothing is known of {} after {sql}", table.table),
            }
        }
        for table in touched.iter().filter(|table| !actual.contains_key(table)) {
            // A sequence may stand there, which nobody can tell from the statement.
            assert!(
                !matches!(tables.get(table), Some(Held::Shape(_))),
                "{} is there no more after {sql}",
                table.table
            );
        }
    }
    counts
}
