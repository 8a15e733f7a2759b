//! Against real servers: what statements make of shapes, and what the log says of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

mod statements;
mod types;

use super::catalog::{self, Listed};
use super::reader::TableRef;
use super::shape::Shape;
use crate::mysql::binlog::{self, Checksum, Column, Event, Format, Metadata, header};
use crate::mysql::charset::Collations;
use crate::mysql::connection::{Connection, Target};
use crate::mysql::dsn::Dsn;
use deltaforge_core::config::{Tls, TlsMode};
use deltaforge_testkit::servers::{Flavour, Mysqld, MysqldOptions};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// A statement as the log has it.
struct Logged {
    db: String,
    sql: Vec<u8>,
    sql_mode: u64,
}

/// A table as the log has it.
struct Mapped {
    table: TableRef,
    columns: Vec<Column>,
    metadata: Metadata,
}

/// A server with an empty database, and a place in its log.
struct Server {
    mysqld: Mysqld,
    db: String,
    connection: Connection,
    read_to: u64,
}

impl Server {
    fn start(flavour: Flavour, args: &[&str]) -> Server {
        let options =
            MysqldOptions { args: args.iter().map(|arg| arg.to_string()).collect(), ..Default::default() };
        let mysqld = Mysqld::start(flavour, &options).unwrap_or_else(|error| panic!("{error}"));
        let db = mysqld.fresh_db("schemas");
        let connection = connect(&mysqld);
        let mut server = Server { mysqld, db, connection, read_to: 4 };
        server.log();
        server
    }

    /// What has been logged since the last call.
    fn log(&mut self) -> (Vec<Logged>, Vec<Mapped>) {
        let (file, end) = self.mysqld.binlog_end();
        let bytes = fs::read(self.mysqld.data_dir().join(file)).unwrap();
        let (mut statements, mut maps) = (Vec::new(), Vec::new());
        let mut format = Format { checksum: Checksum::Unknown, mariadb: false };
        let mut at = 4;
        while at < end as usize {
            let size = u32::from_le_bytes(bytes[at + 9..at + 13].try_into().unwrap()) as usize;
            let (head, body) = header::split(&bytes[at..at + size], format.checksum).unwrap();
            match binlog::decode(&head, body, format).unwrap() {
                Event::FormatDescription(description) => format = description.format,
                Event::Query(query) if at as u64 >= self.read_to => statements.push(Logged {
                    db: query.database.to_owned(),
                    sql: query.sql.to_vec(),
                    sql_mode: query.settings.sql_mode.unwrap_or(0),
                }),
                Event::TableMap(map) if at as u64 >= self.read_to => {
                    let columns = map.columns().unwrap();
                    let metadata = map.metadata(&columns).unwrap();
                    let table = TableRef { db: map.database.to_owned(), table: map.table.to_owned() };
                    maps.push(Mapped { table, columns, metadata });
                }
                _ => {}
            }
            at += size;
        }
        self.read_to = end;
        (statements, maps)
    }

    /// The database's tables as the server has them.
    fn shapes(&mut self) -> BTreeMap<TableRef, Shape> {
        let db = self.db.clone();
        catalog::read_shapes(&mut self.connection, &|d, _| d == db).unwrap().into_iter().collect()
    }

    fn table(&self, name: &str) -> TableRef {
        TableRef { db: self.db.clone(), table: name.to_owned() }
    }

    fn collations(&mut self) -> Collations {
        catalog::collations(&mut self.connection).unwrap()
    }
}

fn connect(mysqld: &Mysqld) -> Connection {
    let target = Target {
        dsn: Dsn::parse(&mysqld.dsn("")).unwrap(),
        tls: Tls::default(),
        tls_mode: TlsMode::Disable,
        connect_timeout: Duration::from_secs(10),
    };
    Connection::open(&target).unwrap()
}

#[test]
fn a_lock_keeps_shapes_as_they_are() {
    for flavour in Flavour::available() {
        let mut server = Server::start(flavour, &[]);
        let tables: Vec<String> =
            (0..100).map(|n| format!("CREATE TABLE t{n:02} (id INT PRIMARY KEY)")).collect();
        server.mysqld.sql(&server.db, &tables.join(";"));
        server.mysqld.sql(&server.db, "CREATE VIEW v AS SELECT 1 AS a; CREATE TABLE other (id INT)");
        let db = server.db.clone();
        let mut writer = server.mysqld.session(&db);
        writer.sql("SET SESSION lock_wait_timeout = 1");
        let mysqld = &server.mysqld;
        let mut attempts = 0;
        let wanted = |d: &str, table: &str| d == db && table.starts_with('t');
        let (place, shapes) = catalog::lock_shapes(&mut server.connection, &wanted, &mut |_| {
            attempts += 1;
            if attempts == 1 {
                // Made behind the lock's back.
                writer.sql("CREATE TABLE t_new (id INT)");
            }
            writer.sql(&format!("INSERT INTO t07 VALUES ({attempts})"));
            writer.sql(&format!("ALTER TABLE other ADD COLUMN a{attempts} INT"));
            for name in ["t00", "t99"] {
                let refused = writer.try_sql(&format!("ALTER TABLE {name} ADD COLUMN a INT")).unwrap_err();
                assert_eq!(refused.code, 1205, "{refused}");
            }
            Ok(mysqld.binlog_end())
        })
        .unwrap();
        assert_eq!(attempts, 2);
        assert_eq!(place, server.mysqld.binlog_end());
        assert_eq!(shapes.len(), 101);
        assert!(shapes.iter().all(|(_, shape)| shape.columns.len() == 1));
        writer.sql("ALTER TABLE t00 ADD COLUMN a INT");
    }
}

#[test]
fn a_fault_lets_the_locks_go() {
    for flavour in Flavour::available() {
        let mut server = Server::start(flavour, &[]);
        server.mysqld.sql(&server.db, "CREATE TABLE t (id INT)");
        let db = server.db.clone();
        let failed = catalog::lock_shapes(&mut server.connection, &|d, _| d == db, &mut |_| {
            Err::<(), _>(deltaforge_core::Fault::bug("test", "no"))
        });
        assert_eq!(failed.unwrap_err().code(), "test");
        server.mysqld.sql(&server.db, "SET SESSION lock_wait_timeout = 1; ALTER TABLE t ADD COLUMN a INT");
    }
}

#[test]
fn what_stands_under_a_name_is_told() {
    for flavour in Flavour::available() {
        let mut server = Server::start(flavour, &[]);
        server.mysqld.sql(
            &server.db,
            "CREATE TABLE t (id INT); CREATE TABLE `T` (a INT, b INT); CREATE VIEW v AS SELECT 1 AS a",
        );
        let names = ["t", "T", "v", "gone"].map(|name| server.table(name));
        let found = catalog::read_tables(&mut server.connection, &names).unwrap();
        let columns = |listed: &Option<Listed>| match listed {
            Some(Listed::Table(shape)) => shape.columns.len().to_string(),
            Some(Listed::Other(kind)) => kind.clone(),
            None => "nothing".into(),
        };
        let found: Vec<String> = found.iter().map(|(_, listed)| columns(listed)).collect();
        assert_eq!(found, ["1", "2", "VIEW", "nothing"]);
        if flavour == Flavour::MariaDb {
            server.mysqld.sql(&server.db, "CREATE SEQUENCE s");
            let names = [server.table("s")];
            let found = catalog::read_tables(&mut server.connection, &names).unwrap();
            assert_eq!(found[0].1, Some(Listed::Other("SEQUENCE".into())));
        }
        let defaults = catalog::defaults(&mut server.connection).unwrap();
        assert!(defaults.explicit_timestamps && defaults.utf8 == "utf8mb3");
        let charsets = catalog::database_charsets(&mut server.connection).unwrap();
        assert_eq!(charsets[&server.db], "utf8mb4");
    }
}
