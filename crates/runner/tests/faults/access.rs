//! What the server does not allow, or is not set up for: refused once, with the statement that mends it, and no secret told.

use crate::support::{Engine, Home};
use crate::{Plain, fails_with, to_file};
use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres};
use serde_json::Value;

const PASSWORD: &str = "canary6f1d";

fn with_password(tls: bool) -> PgOptions {
    PgOptions { password: Some(PASSWORD.into()), tls, ..PgOptions::default() }
}

fn hint(error: &Value) -> &str {
    error["hint"].as_str().unwrap_or_default()
}

/// Neither the log nor the API tells a password.
#[track_caller]
fn tells_no_secret(home: &Home, secret: &str) {
    let log = std::fs::read_to_string(home.path("log")).unwrap();
    assert!(!log.contains(secret), "the log tells the password");
}

#[test]
fn a_wrong_password() {
    let plain = Plain::new(&with_password(false));
    let dsn = plain.postgres.dsn(&plain.database).replace(PASSWORD, "wrong9c2e");
    plain.home.write("pipeline.yaml", &to_file(&dsn));
    let error = fails_with(&plain.home, "postgres.auth");
    assert!(!error.to_string().contains("wrong9c2e"));
    tells_no_secret(&plain.home, "wrong9c2e");
    plain.home.write("pipeline.yaml", &to_file(&plain.postgres.dsn(&plain.database)));
    plain.run_once();
    tells_no_secret(&plain.home, PASSWORD);
}

#[test]
fn a_server_without_logical_log() {
    let settings = vec![("wal_level".to_owned(), "replica".to_owned())];
    let plain = Plain::new(&PgOptions { settings, ..PgOptions::default() });
    let error = fails_with(&plain.home, "postgres.wal_level");
    assert!(hint(&error).contains("ALTER SYSTEM SET wal_level"), "{error}");
}

#[test]
fn missing_rights_and_the_statements_that_give_them() {
    let plain = Plain::new(&PgOptions::default());
    plain.psql("create role reader login");
    let dsn = plain.postgres.dsn(&plain.database).replace("postgres@", "reader@");
    plain.home.write("pipeline.yaml", &to_file(&dsn));

    let error = fails_with(&plain.home, "postgres.no_rights");
    assert!(hint(&error).contains("ALTER ROLE \"reader\" REPLICATION"), "{error}");
    plain.psql("alter role reader replication");

    // A publication of tables that belong to somebody else: their owner must make it.
    let error = fails_with(&plain.home, "postgres.no_rights");
    let statement = ["CREATE PUBLICATION \"df\" FOR TABLE", "\"public\".\"t\""];
    assert!(statement.iter().all(|part| hint(&error).contains(part)), "{error}");
    plain.psql("create publication df for table t");
    plain.run_once();

    // And one that the operator keeps to themselves.
    let database = plain.postgres.fresh_db("kept");
    plain.postgres.psql(&database, "create table t (id int primary key)");
    let document = to_file(&plain.postgres.dsn(&database))
        .replace("slot: df", "slot: kept, id: kept, create_publication: false");
    plain.home.write("pipeline.yaml", &document);
    let error = fails_with(&plain.home, "postgres.publication_missing");
    assert!(hint(&error).contains("CREATE PUBLICATION \"df\""), "{error}");
    plain.postgres.psql(&database, "create publication df for all tables");
    plain.home.write("pipeline.yaml", &document.replace("slot: kept", "slot: kept, create_slot: false"));
    let error = fails_with(&plain.home, "postgres.slot_missing");
    assert!(hint(&error).contains("pg_create_logical_replication_slot('kept', 'pgoutput')"), "{error}");
}

#[test]
fn a_database_that_is_not_there() {
    let plain = Plain::new(&PgOptions::default());
    plain.home.write("pipeline.yaml", &to_file(&plain.postgres.dsn("nowhere")));
    fails_with(&plain.home, "postgres.no_database");
}

/// How the engine's connections are encrypted, as the server sees it: one line per kind.
fn encryption(postgres: &Postgres) -> String {
    postgres.psql(
        "postgres",
        "select distinct s.ssl from pg_stat_ssl s join pg_stat_activity a using (pid) where a.application_name = 'deltaforge'",
    )
}

#[test]
fn encrypted_connections() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let postgres = Postgres::start(version, &with_password(true)).unwrap();
        let database = postgres.fresh_db("tls");
        postgres.psql(&database, "create table t (id int primary key)");
        let dsn = postgres.dsn(&database);
        let home = Home::to_file(&dsn, "['public.%']");
        let ca = format!("sslrootcert={}", postgres.ca_file().display());
        let mut rows = 0;
        // The login is SCRAM with channel binding wherever the connection is encrypted: the server offers it then.
        let modes = [
            ("sslmode=disable".to_owned(), "f"),
            ("sslmode=prefer".to_owned(), "t"),
            ("sslmode=require".to_owned(), "t"),
            (format!("sslmode=verify-ca&{ca}"), "t"),
            (format!("sslmode=verify-full&{ca}"), "t"),
        ];
        for (mode, encrypted) in modes {
            home.write("pipeline.yaml", &to_file(&format!("{dsn}?{mode}")));
            let engine: Engine = home.start();
            rows += 1;
            postgres.psql(&database, &format!("insert into t values ({rows})"));
            home.wait_events(rows);
            assert_eq!(encryption(&postgres), encrypted, "{mode}");
            engine.stop();
        }
        let other = format!("sslrootcert={}", postgres.tls().other_ca_file().display());
        let refused = [
            format!("sslmode=verify-full&{other}"),
            format!("sslmode=verify-ca&{other}"),
            "sslmode=verify-full".into(),
        ];
        for mode in refused {
            home.write("pipeline.yaml", &to_file(&format!("{dsn}?{mode}")));
            fails_with(&home, "tls.certificate_refused");
        }
        assert_eq!(home.events().len(), rows);
        tells_no_secret(&home, PASSWORD);
        println!(
            "{version:?}: {rows} encrypted and plain modes deliver, 3 with the wrong authority are refused"
        );
    }
}

#[test]
fn a_server_without_encryption() {
    let plain = Plain::new(&PgOptions::default());
    let dsn = plain.postgres.dsn(&plain.database);
    plain.home.write("pipeline.yaml", &to_file(&format!("{dsn}?sslmode=require")));
    let error = fails_with(&plain.home, "postgres.tls");
    assert!(hint(&error).contains("ssl = on"), "{error}");
    plain.home.write("pipeline.yaml", &to_file(&format!("{dsn}?sslmode=prefer")));
    plain.run_once();
}
