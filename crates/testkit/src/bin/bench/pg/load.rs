//! The backlog: rows of about 400 bytes of JSON.

use crate::Shape;
use deltaforge_testkit::servers::Postgres;

/// Database of the bench.
pub(crate) const DB: &str = "bench";

/// The table, its publication, and the procedure that writes changes: per ten changes five inserts, four updates, one delete.
pub(crate) fn prepare(server: &Postgres) {
    server.psql("postgres", &format!("CREATE DATABASE {DB}"));
    server.psql(
        DB,
        "CREATE TABLE orders (
            id bigint PRIMARY KEY, customer_id int NOT NULL, status text NOT NULL, total numeric(12,2) NOT NULL,
            currency char(3) NOT NULL, paid boolean NOT NULL, weight double precision, note text, address text,
            created_at timestamptz NOT NULL, updated_at timestamp NOT NULL, ref uuid NOT NULL);
         CREATE PUBLICATION bench FOR TABLE orders;
         CREATE FUNCTION change(n bigint) RETURNS void LANGUAGE plpgsql AS $$
         DECLARE
            k bigint := n / 10; d int := n % 10;
         BEGIN
            IF d < 5 THEN
                INSERT INTO orders VALUES (5 * k + d, n % 9973, 'open', (n % 100000) / 100.0, 'EUR', n % 3 = 0, n * 0.37,
                    'a note of usual length with \"quotes\" and some more words to carry it on',
                    '12 Long Street, 4711 Some Town, in a country far away from here',
                    '2025-01-15 14:32:01.847+00'::timestamptz + n * interval '1 ms', '2025-01-15 14:32:01.5',
                    ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid);
            ELSIF d < 9 THEN
                UPDATE orders SET status = 'paid', total = total + 1, updated_at = '2025-02-01 10:00:00.25' WHERE id = 5 * k + d - 5;
            ELSE
                DELETE FROM orders WHERE id = 5 * k + 4;
            END IF;
         END $$;
         CREATE PROCEDURE backlog(total bigint, per_transaction bigint) LANGUAGE plpgsql AS $$
         BEGIN
            FOR n IN 0 .. total - 1 LOOP
                PERFORM change(n);
                IF (n + 1) % per_transaction = 0 THEN COMMIT; END IF;
            END LOOP;
         END $$;",
    );
}

pub(crate) fn make_slot(server: &Postgres, slot: &str) {
    server.psql(DB, &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
}

/// The statements are planned while the table is empty; without this they would read it from end to end for ever.
const BY_KEY: &str = "SET enable_seqscan = off; SET synchronous_commit = off;";

/// Writes the backlog; gives the number of changes.
pub(crate) fn write(server: &Postgres, shape: Shape, rows: u64) -> u64 {
    server.psql(DB, &format!("{BY_KEY} CALL backlog({rows}, {})", shape.rows()));
    server.psql(DB, "CHECKPOINT");
    rows
}

/// The same in one transaction.
pub(crate) fn write_single_transaction(server: &Postgres, rows: u64) {
    server.psql(DB, &format!("{BY_KEY} CALL backlog({rows}, {})", rows + 1));
}

/// The present end of the log.
pub(crate) fn end(server: &Postgres) -> String {
    server.psql(DB, "SELECT pg_current_wal_lsn()").trim().to_string()
}
