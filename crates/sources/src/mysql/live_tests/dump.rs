//! Streams of the log, and the places that a server does not have.

use super::{create_table, find, open, rows, settings, start, with_args};
use crate::mysql::dump::{DumpRequest, DumpStart};
use crate::mysql::gtid::GtidSet;
use crate::mysql::{check, error};
use crate::shared::transport::{Transport, is_timeout};
use deltaforge_core::{Class, Fault};
use deltaforge_testkit::servers::{Flavour, MysqldOptions};
use deltaforge_testkit::wait_for;
use serde_json::json;
use std::time::{Duration, Instant};

/// A stream's packets, as its reader will see them.
pub(super) struct Dump {
    transport: Transport,
    received: Vec<u8>,
}

impl Dump {
    pub(super) fn open(dsn: &str, start: DumpStart, server_id: u32) -> Result<Dump, Fault> {
        let request = DumpRequest { start, server_id, heartbeat: Duration::from_secs(1), annotate: false };
        let (transport, received) = open(dsn)?.start_dump(&request)?;
        Ok(Dump { transport, received })
    }

    /// The next packet's payload; the connection's end is an error.
    fn next(&mut self) -> Result<Vec<u8>, Fault> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(header) = self.received.first_chunk::<4>() {
                let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
                if self.received.len() >= 4 + length {
                    let packet: Vec<u8> = self.received.drain(..4 + length).skip(4).collect();
                    return if packet[0] == 0xff {
                        Err(error::from_packet(&packet, "streaming"))
                    } else {
                        Ok(packet)
                    };
                }
            }
            let mut chunk = [0; 4096];
            match self.transport.read(&mut chunk) {
                Ok(0) => return Err(error::closed("streaming")),
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(e) if is_timeout(&e) => {
                    assert!(Instant::now() < until, "nothing comes")
                }
                Err(e) => return Err(error::lost_connection("streaming", &e)),
            }
        }
    }

    /// Types of the events up to the first of a type.
    pub(super) fn types_up_to(&mut self, last: u8) -> Result<Vec<u8>, Fault> {
        let mut types = Vec::new();
        while types.last() != Some(&last) {
            let packet = self.next()?;
            assert_eq!(packet[0], 0, "an event begins with a zero byte");
            types.push(packet[5]);
        }
        Ok(types)
    }

    /// The fault that comes before the server falls silent.
    #[track_caller]
    fn fault(&mut self) -> Fault {
        loop {
            match self.next() {
                Err(fault) => return fault,
                Ok(packet) => assert_ne!(packet[5], HEARTBEAT, "the server waits instead of refusing"),
            }
        }
    }
}

const ROTATE: u8 = 4;
const FORMAT: u8 = 15;
pub(super) const XID: u8 = 16;
const HEARTBEAT: u8 = 27;

fn gtid_type(flavour: Flavour) -> u8 {
    match flavour {
        Flavour::MySql => 33,
        Flavour::MariaDb => 162,
    }
}

#[test]
fn the_log_comes_from_a_place_and_from_a_set() {
    for flavour in Flavour::available() {
        let server = start(flavour, &MysqldOptions::default());
        create_table(&server);
        let (file, pos) = server.binlog_end();
        let set = GtidSet::parse(&server.gtids()).unwrap();
        rows(&server, 2);
        let dsn = server.dsn("");
        for start in [DumpStart::File { file, pos }, DumpStart::Gtids(set)] {
            let shown = format!("{flavour:?} {start:?}");
            let mut dump = Dump::open(&dsn, start, 99).unwrap_or_else(|e| panic!("{shown}: {e}"));
            // Not up to the first heartbeat: MySQL sends one, too, before the first transaction behind those that it left out.
            let mut types = Vec::new();
            for last in [XID, XID, HEARTBEAT] {
                types.extend(dump.types_up_to(last).unwrap_or_else(|e| panic!("{shown}: {types:?}: {e}")));
            }
            assert_eq!(types[0], ROTATE, "{shown}: {types:?}");
            assert!(types.contains(&FORMAT), "{shown}: {types:?}");
            // Two transactions and none of those before, each with its GTID.
            let count = |of: u8| types.iter().filter(|t| **t == of).count();
            assert_eq!((count(XID), count(gtid_type(flavour))), (2, 2), "{shown}: {types:?}");
        }
    }
}

#[test]
fn a_place_beyond_4_gib_needs_gtids() {
    let far = || DumpStart::File { file: "bin.000001".into(), pos: 5 << 30 };
    for flavour in Flavour::available() {
        let server = start(flavour, &MysqldOptions::default());
        match flavour {
            // The place is not there, but it is asked for, whole.
            Flavour::MySql => {
                let mut dump = Dump::open(&server.dsn(""), far(), 99).unwrap();
                let fault = dump.fault();
                assert_eq!((fault.class(), fault.code()), (Class::Lost, "mysql.source_behind"), "{fault}");
            }
            Flavour::MariaDb => {
                let fault = Dump::open(&server.dsn(""), far(), 99).err().unwrap();
                assert_eq!(fault.code(), "mysql.offset_limit", "{fault}");
            }
        }
    }
    if Flavour::MySql.is_available() {
        let server = start(Flavour::MySql, &with_args(&["--gtid-mode=OFF"]));
        let fault = Dump::open(&server.dsn(""), far(), 99).err().unwrap();
        assert_eq!(fault.code(), "mysql.offset_limit", "{fault}");
    }
}

#[test]
fn of_two_readers_with_one_server_id_the_older_stops() {
    for flavour in Flavour::available() {
        let server = start(flavour, &MysqldOptions::default());
        let latest = || {
            let (file, pos) = server.binlog_end();
            DumpStart::File { file, pos }
        };
        let mut first = Dump::open(&server.dsn(""), latest(), 99).unwrap();
        first.types_up_to(FORMAT).unwrap();
        let mut second = Dump::open(&server.dsn(""), latest(), 99).unwrap();
        let fault = first.fault();
        assert_eq!((fault.class(), fault.code()), (Class::Config, "mysql.server_id_in_use"), "{fault}");
        second.types_up_to(HEARTBEAT).unwrap();
        let mut other = Dump::open(&server.dsn(""), latest(), 98).unwrap();
        other.types_up_to(HEARTBEAT).unwrap();
        second.types_up_to(HEARTBEAT).unwrap();
    }
}

#[test]
fn places_that_are_gone_or_not_yet_there_are_lost() {
    for flavour in Flavour::available() {
        let server = start(flavour, &MysqldOptions::default());
        create_table(&server);
        rows(&server, 2);
        let (file, _) = server.binlog_end();
        let old = GtidSet::parse(&server.gtids()).unwrap();
        let own = |n: u64| match flavour {
            Flavour::MySql => format!("{}:1-{n}", server.value("SELECT @@server_uuid")),
            Flavour::MariaDb => format!("7-{}-{n}", server.port()),
        };
        rows(&server, 2);
        server.sql("", "FLUSH BINARY LOGS");
        rows(&server, 2);
        let (now, end) = server.binlog_end();
        // MariaDB keeps a file that a crash would still need, without an error, until the storage engine says that it is not.
        wait_for("the first log file to be deleted", Duration::from_secs(60), || {
            server.sql("", &format!("PURGE BINARY LOGS TO '{now}'"));
            server.sql("", "SHOW BINARY LOGS").len() == 1
        });
        let cases = [
            (DumpStart::File { file, pos: 4 }, "mysql.binlog_purged"),
            (DumpStart::Gtids(old), "mysql.binlog_purged"),
            (DumpStart::File { file: now, pos: end + 1000 }, "mysql.source_behind"),
            (DumpStart::Gtids(GtidSet::parse(&own(1_000_000)).unwrap()), "mysql.source_behind"),
        ];
        for (start, code) in cases {
            let shown = format!("{flavour:?} {start:?}");
            let mut dump = Dump::open(&server.dsn(""), start, 99).unwrap();
            let fault = dump.fault();
            assert_eq!((fault.class(), fault.code()), (Class::Lost, code), "{shown}: {fault}");
        }
    }
}

#[test]
fn a_server_without_gtids_or_log_says_so() {
    if Flavour::MySql.is_available() {
        let server = start(Flavour::MySql, &with_args(&["--gtid-mode=OFF"]));
        let set = GtidSet::parse(&format!("{}:1-5", server.value("SELECT @@server_uuid"))).unwrap();
        let fault = Dump::open(&server.dsn(""), DumpStart::Gtids(set), 99).unwrap().fault();
        assert_eq!((fault.class(), fault.code()), (Class::Config, "mysql.gtid_mode"), "{fault}");
    }
    for flavour in Flavour::available() {
        let server = start(flavour, &with_args(&["--skip-log-bin"]));
        let settings = settings(json!({"dsn": server.dsn("")}));
        let fault = check::require(&settings, &mut open(&server.dsn("")).unwrap()).unwrap_err();
        assert_eq!((fault.class(), fault.code()), (Class::Config, "mysql.binlog_off"), "{fault}");
        let mut dump =
            Dump::open(&server.dsn(""), DumpStart::File { file: "bin.000001".into(), pos: 4 }, 99).unwrap();
        let fault = dump.fault();
        assert_eq!((fault.class(), fault.code()), (Class::Config, "mysql.binlog_off"), "{fault}");
        assert!(find(&check::run(&settings), "log_bin").contains("under [m"));
    }
}
