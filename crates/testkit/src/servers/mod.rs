//! Real servers, started by the test that needs them.
//!
//! ```no_run
//! use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres, Proxy};
//!
//! let postgres = Postgres::start(PgVersion::V18, &PgOptions::default()).unwrap();
//! let database = postgres.fresh_db("orders");
//! postgres.psql(&database, "create table t (id int primary key)");
//! let proxy = Proxy::start(postgres.port());
//! // … capture through `proxy.port()`, then:
//! proxy.cut();
//! ```
//!
//! A server costs some 0.3 s. Start one per test binary (in a `static LazyLock`) and give each test a database or a key
//! prefix of its own; start one per test only where the test stops, freezes or configures it.
//!
//! How it holds together, from the bottom:
//!
//! - `binaries`: where the programs are, and as which user they run. `./dev.sh setup` puts them there.
//! - `port`: a port is *reserved* with a bound socket, so that it stays ours while its server is down.
//! - `process`: a server is whatever works in its folder. That rule finds the backends of PostgreSQL, which leave the
//!   process group, and lets a watchdog clean up after a test process that was killed or that kept its server in a
//!   `static`.
//! - `template`: what an empty server has in its folder is made once and copied.
//! - [`Postgres`], [`Mysqld`] (MySQL and MariaDB), [`Redis`], [`RedisCluster`], [`RedisSentinel`], [`Kafka`],
//!   [`Nats`], [`NatsCluster`]: the servers. [`Proxy`]: the bad network between.

mod binaries;
mod kafka;
mod mysql;
mod nats;
mod port;
mod postgres;
mod process;
mod proxy;
mod redis;
mod template;
mod tls;

pub use kafka::{Kafka, KafkaOptions, KafkaSasl};
pub use mysql::{ByteRows, Flavour, Mysqld, MysqldOptions, Rows, Session, SqlError};
pub use nats::{Nats, NatsAuth, NatsCluster, NatsOptions, NatsVersion};
pub use postgres::{PgOptions, PgVersion, Postgres};
pub use proxy::Proxy;
pub use redis::{Redis, RedisCluster, RedisOptions, RedisSentinel};
pub use tls::Tls;

/// The address that every server listens on.
pub const HOST: &str = "127.0.0.1";
