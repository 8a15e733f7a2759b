//! A second server that follows the first, for failover.

use std::time::Duration;

use super::{Flavour, Mysqld, MysqldOptions, quoted};
use crate::wait_for;

/// How long a replica may take for what takes it a moment.
const PATIENCE: Duration = Duration::from_secs(60);

impl Mysqld {
    /// Starts a server that follows `primary` by GTID from the beginning of its binary log, which must still be whole.
    /// Returns when the first events have been asked for; [`Mysqld::catch_up_with`] waits for them.
    ///
    /// # Errors
    /// As [`Mysqld::start`], or what the server says to being a replica.
    pub fn replica_of(primary: &Mysqld, options: &MysqldOptions) -> Result<Mysqld, String> {
        let replica = Mysqld::start(primary.flavour, options)?;
        let (host, port) = (primary.host(), primary.port());
        let password = quoted(primary.password.as_deref().unwrap_or_default());
        // The short interval: a primary that was restarted is found again at once, not after a minute.
        let follow = match primary.flavour {
            Flavour::MySql => format!(
                "change replication source to source_host = '{host}', source_port = {port}, source_user = 'root', \
                 source_password = {password}, source_auto_position = 1, get_source_public_key = 1, \
                 source_connect_retry = 1; start replica"
            ),
            Flavour::MariaDb => format!(
                "change master to master_host = '{host}', master_port = {port}, master_user = 'root', \
                 master_password = {password}, master_use_gtid = slave_pos, master_connect_retry = 1; start slave"
            ),
        };
        replica.try_sql("", &follow).map_err(|error| error.to_string())?;
        let mut error = String::new();
        wait_for("the replica to be connected", PATIENCE, || {
            error = replica.replica_status("Last_IO_Error");
            !error.is_empty() || replica.is_connected()
        });
        if error.is_empty() { Ok(replica) } else { Err(error) }
    }

    fn is_connected(&self) -> bool {
        let column = match self.flavour {
            Flavour::MySql => "Replica_IO_Running",
            Flavour::MariaDb => "Slave_IO_Running",
        };
        self.replica_status(column) == "Yes"
    }

    /// Waits until this server has every transaction that `primary` has now.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    #[track_caller]
    pub fn catch_up_with(&self, primary: &Mysqld) {
        self.wait_for_gtids(&primary.gtids());
    }

    #[track_caller]
    fn wait_for_gtids(&self, gtids: &str) {
        if gtids.is_empty() {
            return;
        }
        let seconds = PATIENCE.as_secs();
        let function = match self.flavour {
            Flavour::MySql => "wait_for_executed_gtid_set",
            Flavour::MariaDb => "master_gtid_wait",
        };
        let answer = self.value(&format!("select {function}('{gtids}', {seconds})"));
        let error = || self.replica_status("Last_SQL_Error");
        assert_eq!(answer, "0", "the replica does not reach {gtids}: {}", error());
    }

    /// Makes a replica a server of its own, the old primary being alive or not, once it has applied all that it had
    /// received. Clients have to be sent to it by the test.
    ///
    /// # Panics
    /// When it is no replica, or cannot apply what it had received within a minute.
    pub fn promote(&self) {
        let (stop_receiving, received, end) = match self.flavour {
            Flavour::MySql => {
                ("stop replica io_thread", "Retrieved_Gtid_Set", "stop replica; reset replica all")
            }
            Flavour::MariaDb => ("stop slave io_thread", "Gtid_IO_Pos", "stop slave; reset slave all"),
        };
        self.sql("", stop_receiving);
        self.wait_for_gtids(&self.replica_status(received).replace('\n', ""));
        self.sql("", end);
    }

    /// One column of the replica's status, a row whose columns the two servers name differently.
    #[track_caller]
    fn replica_status(&self, column: &str) -> String {
        let mut session = self.session("");
        let rows = session.sql(match self.flavour {
            Flavour::MySql => "show replica status",
            Flavour::MariaDb => "show slave status",
        });
        let index = session.columns().iter().position(|name| name == column);
        let value = index.and_then(|index| rows.first()?.get(index));
        value.unwrap_or_else(|| panic!("no {column}: this is no replica")).clone().unwrap_or_default()
    }
}
