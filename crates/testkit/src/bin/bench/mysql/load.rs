//! The backlog: the rows of PostgreSQL's bench in this server's types.

use deltaforge_testkit::servers::Mysqld;

/// Database of the bench.
pub(super) const DB: &str = "bench";

/// The table, and the procedure that writes changes: per ten changes five inserts, four updates, one delete.
pub(super) fn prepare(server: &Mysqld) {
    server.sql("", &format!("CREATE DATABASE {DB}"));
    server.sql(
        DB,
        "CREATE TABLE orders (
            id bigint PRIMARY KEY, customer_id int NOT NULL, status varchar(20) NOT NULL, total decimal(12,2) NOT NULL,
            currency char(3) NOT NULL, paid boolean NOT NULL, weight double, note text, address text,
            created_at timestamp(3) NOT NULL, updated_at datetime(6) NOT NULL, ref char(36) NOT NULL)",
    );
    let mut session = server.session(DB);
    session.sql(
        "CREATE PROCEDURE backlog(total bigint, per_transaction bigint)
         BEGIN
            DECLARE n bigint DEFAULT 0;
            DECLARE k bigint;
            DECLARE d int;
            SET autocommit = 0;
            WHILE n < total DO
                SET k = n DIV 10, d = n MOD 10;
                IF d < 5 THEN
                    INSERT INTO orders VALUES (5 * k + d, n % 9973, 'open', (n % 100000) / 100.0, 'EUR', n % 3 = 0, n * 0.37,
                        'a note of usual length with \"quotes\" and some more words to carry it on',
                        '12 Long Street, 4711 Some Town, in a country far away from here',
                        '2025-01-15 14:32:01.847', '2025-01-15 14:32:01.5',
                        CONCAT('00000000-0000-4000-8000-', LPAD(HEX(n), 12, '0')));
                ELSEIF d < 9 THEN
                    UPDATE orders SET status = 'paid', total = total + 1, updated_at = '2025-02-01 10:00:00.25' WHERE id = 5 * k + d - 5;
                ELSE
                    DELETE FROM orders WHERE id = 5 * k + 4;
                END IF;
                SET n = n + 1;
                IF n % per_transaction = 0 THEN COMMIT; END IF;
            END WHILE;
            COMMIT;
         END",
    );
}

/// Writes so many changes.
pub(super) fn write(server: &Mysqld, changes: u64, per_transaction: u64) {
    server.sql(DB, &format!("CALL backlog({changes}, {per_transaction})"));
}
