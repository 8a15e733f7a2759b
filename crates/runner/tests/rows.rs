mod support;
use deltaforge_testkit::servers::*;
use support::*;

#[test]
fn smoke() {
    let pg = Postgres::start(PgVersion::V15, &PgOptions::default()).unwrap();
    let db = pg.fresh_db("rows");
    pg.psql(&db, "create table t (id int primary key, x text)");
    let home = Home::to_file(&pg.dsn(&db), "['public.%']");
    let engine = home.start();
    pg.psql(&db, "insert into t values (1, 'a'), (2, null)");
    for e in home.wait_events(2) {
        println!("{e}");
    }
    println!("{}", engine.status("p"));
    println!("{}", engine.checkpoint("p"));
    engine.stop();
}
