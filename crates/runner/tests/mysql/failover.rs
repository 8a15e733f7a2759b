//! Another server in place of the first: with the same history, behind it, and with a history of its own.

use super::*;

/// A primary with a replica that has caught up, a pipeline that knows both addresses, and what it has delivered.
struct Pair {
    primary: Mysqld,
    replica: Mysqld,
    db: String,
    home: Home,
}

impl Pair {
    fn new(flavour: Flavour) -> Pair {
        let primary = own_server(flavour, &[]);
        let replica = Mysqld::replica_of(&primary, &MysqldOptions::default()).unwrap();
        let db = primary.fresh_db("failover");
        primary.sql(&db, TABLE);
        let (first, second) = (primary.port(), replica.port());
        let dsn = format!("{}://root@127.0.0.1:{first},127.0.0.1:{second}/{db}", flavour.name());
        let home = home_at(flavour, &dsn, &db, "");
        Pair { primary, replica, db, home }
    }

    /// The replica was promoted before it had the last ten transactions, which were delivered; the pipeline is stopped.
    fn promoted_too_early(flavour: Flavour) -> Pair {
        let pair = Pair::new(flavour);
        let engine = pair.home.start();
        pair.work(&pair.primary, 1..=10);
        pair.replica.catch_up_with(&pair.primary);
        pair.replica.promote();
        pair.work(&pair.primary, 11..=20);
        pair.wait_for(20);
        engine.stop();
        pair
    }

    /// Transactions that leave the value `last` in the last row.
    fn work(&self, server: &Mysqld, values: std::ops::RangeInclusive<u32>) {
        let mut session = server.session(&self.db);
        for v in values {
            session.sql(&format!(
                "begin; insert into t (v, pad) values ({v}, 'new'); update t set pad = 'old' where id < last_insert_id() \
                 and pad = 'new'; commit"
            ));
        }
    }

    #[track_caller]
    fn wait_for(&self, v: u32) {
        support::wait_for_event(&self.home, |e| e["op"] == "c" && e["after"]["v"] == v);
    }

    /// The pipeline, started on the replica alone, fails with this code and delivers nothing more.
    #[track_caller]
    fn assert_refused(&self, code: &str) {
        self.primary.kill();
        let before = self.home.events().len();
        let engine = self.home.launch(&[]);
        let status = engine.wait_status("p", "failed", |s| s["status"] == "failed");
        assert_eq!(status["error"]["code"], code, "{}: {status}", self.primary.flavour().name());
        assert_eq!(self.home.events().len(), before);
        engine.stop();
    }
}

#[test]
fn a_server_with_the_same_history_is_gone_on_with() {
    for flavour in Flavour::available() {
        let pair = Pair::new(flavour);
        let engine = pair.home.start();
        pair.work(&pair.primary, 1..=50);
        // Files and offsets are each server's own.
        pair.replica.sql("", "flush binary logs");
        pair.wait_for(50);
        pair.work(&pair.primary, 51..=80);
        pair.replica.catch_up_with(&pair.primary);
        pair.primary.kill();
        pair.replica.promote();
        pair.work(&pair.replica, 81..=120);
        pair.wait_for(120);
        engine.stop();
        assert_folds_to_table(&pair.home, &pair.replica, &pair.db);
        // The new place holds over a restart.
        let engine = pair.home.start();
        pair.work(&pair.replica, 121..=121);
        pair.wait_for(121);
        engine.stop();
        assert_folds_to_table(&pair.home, &pair.replica, &pair.db);
    }
}

#[test]
fn a_server_that_lacks_what_was_delivered_is_refused() {
    for flavour in Flavour::available() {
        let pair = Pair::promoted_too_early(flavour);
        pair.assert_refused("mysql.source_behind");
    }
}

#[test]
fn a_server_that_went_another_way_is_refused() {
    for flavour in Flavour::available() {
        let pair = Pair::promoted_too_early(flavour);
        // As many transactions and more, of its own.
        pair.work(&pair.replica, 111..=140);
        pair.assert_refused("mysql.source_behind");
    }
}
