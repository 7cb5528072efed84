//! Accounts of every kind that a server offers: with which of them the donor's program logs in, and what both hosts
//! and `rejoin check` say of the others.
use std::process::Command;

use anyhow::{Context, Result, ensure};
use formats::wsrep::credentials::{Account, Secret};
use rejoin_lab::places::User;
use rejoin_lab::{Cluster, Installation};
use transfer::sql::{ANSWER_WITHIN, Login, Session};

use super::fake::{Call, Ended};
use super::fake_transfer::{Fakes, SOON};

/// A server that runs, and transfers from it under fake parents.
struct Donor {
    fakes: Fakes,
}

impl Donor {
    fn of(installation: Option<Installation>) -> Result<Donor> {
        let builder = Cluster::builder().nodes(2);
        let builder = match installation {
            Some(installation) => builder.installation(installation),
            None => builder,
        };
        let fakes = Fakes::of(builder)?;
        fakes.donor().bootstrap()?;
        Ok(Donor { fakes })
    }

    fn sql(&self, statements: &[&str]) -> Result<()> {
        self.fakes.donor().exec(statements)
    }

    /// A transfer with this account, from the online snapshot alone. The programs are the server's user, whom the server
    /// knows no account of: root has one here.
    fn transfer(&self, account: &str) -> Result<(Ended, Ended)> {
        let auth = format!("wsrep-sst-auth={account}");
        self.fakes.set_sst(&[&auth, "snapshot=online"])?;
        let user = User::for_servers()?;
        let prefix = match user.switch {
            true => format!("setpriv --reuid {} --regid {} --clear-groups ", user.uid, user.gid),
            false => String::new(),
        };
        let (donor, joiner) = (self.fakes.donor(), self.fakes.joiner());
        let line = self.fakes.joiner_line(&format!("127.0.0.1:{}", joiner.ports().sst()), 0);
        let call = Call::new(format!("{prefix}{line}"), &joiner.datadir()).env("WSREP_SST_OPT_AUTH", "");
        let mut run = call.start()?;
        let (auth, address) = run.ready()?;
        let line = format!("{prefix}{}", self.fakes.donor_line(&address, 0, ""));
        let given = self.fakes.donor_call(line, &auth).start()?.end(SOON)?;
        let received = run.end(SOON)?;
        ensure!(donor.value("SELECT 1")? == "1");
        Ok((given, received))
    }

    /// The right password is never denied, whatever nonce the server chooses: without another try 1 login of 256 failed.
    fn always_logs_in(&self, user: &str, password: &str) -> Result<()> {
        let account = Account { user: user.to_owned(), password: Secret::new(password) };
        let login = Login::at_socket(&self.fakes.donor().socket(), Some(&account));
        for number in 0..1500 {
            let session = Session::open(&login, ANSWER_WITHIN);
            ensure!(session.is_ok(), "login {number}: {:?}", session.err());
        }
        Ok(())
    }

    /// A transfer asks its server for the end of the log fifty times a second. An idle donor that counted these among its clients'
    /// statements would be spared like a busy one.
    fn is_idle_while_it_is_asked(&self, user: &str, password: &str) -> Result<()> {
        let account = Account { user: user.to_owned(), password: Secret::new(password) };
        let login = Login::at_socket(&self.fakes.donor().socket(), Some(&account));
        let mut session = Session::open(&login, ANSWER_WITHIN)?;
        let before = session.busyness()?.requests.context("the server tells")?;
        for _ in 0..200 {
            session.log_position()?;
        }
        let requests = session.busyness()?.requests.context("the server tells")? - before;
        ensure!(requests < 20, "{requests} requests of clients");
        self.fakes.donor().value("SELECT 1")?;
        ensure!(session.busyness()?.requests > Some(before), "clients are counted");
        Ok(())
    }

    fn logs_in(&self, account: &str) -> Result<()> {
        let (donor, joiner) = self.transfer(account)?;
        ensure!((donor.code, joiner.code) == (Some(0), Some(0)), "{}\n{}", donor.stderr, joiner.stderr);
        let checked = self.check()?;
        ensure!(checked.contains("running and Synced; its variables and status were checked"), "{checked}");
        Ok(())
    }

    /// Both hosts and the check say all of this, and nobody says to make a new account unless `other` is that.
    fn is_refused(&self, account: &str, why: &[&str]) -> Result<()> {
        let (donor, joiner) = self.transfer(account)?;
        ensure!(donor.code == Some(71) && joiner.code == Some(103), "{}\n{}", donor.stderr, joiner.stderr);
        let checked = self.check()?;
        let new_account = why.iter().any(|why| why.contains("CREATE USER"));
        for (whose, words) in [("donor", &donor.stderr), ("joiner", &joiner.stderr), ("check", &checked)] {
            for why in why {
                ensure!(words.contains(why), "the {whose} does not say {why:?}:\n{words}");
            }
            ensure!(words.contains("CREATE USER") == new_account, "a new account does not help:\n{words}");
        }
        Ok(())
    }

    fn check(&self) -> Result<String> {
        let mut command = Command::new(self.fakes.cluster.program_dir().join("rejoin"));
        command.arg("check").arg("--defaults-file").arg(self.fakes.donor().option_file());
        let out = command.output().context("rejoin check")?;
        ensure!(out.status.code().is_some_and(|code| code < 3), "{out:?}");
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

#[test]
fn accounts_of_10_11() -> Result<()> {
    let donor = Donor::of(None)?;
    donor.sql(&[
        "INSTALL SONAME 'auth_ed25519'",
        "CREATE USER sst@localhost IDENTIFIED VIA ed25519 USING PASSWORD('secret')",
        "GRANT RELOAD, BINLOG MONITOR ON *.* TO sst@localhost",
        // The first version asks in the server's own process. The second one runs a program; where that fails, its child ends
        // by exit() with all of the server's state, and took the server with it in 4 of 20 runs.
        "INSTALL SONAME 'auth_pam_v1'",
        "CREATE USER pam@localhost IDENTIFIED VIA pam USING 'mariadb'",
        "CREATE USER locked@localhost IDENTIFIED BY 'x' ACCOUNT LOCK",
    ])?;
    donor.logs_in("sst:secret").context("ed25519")?;
    donor.always_logs_in("sst", "secret").context("ed25519")?;
    donor.is_idle_while_it_is_asked("sst", "secret")?;
    let denied =
        ["sst: Access denied for user 'sst'@'localhost'", "CREATE USER IF NOT EXISTS 'mysql'@'localhost'"];
    donor.is_refused("sst:wrong", &denied).context("ed25519, a wrong password")?;
    let pam = [
        "pam: the account uses the authentication plugin dialog (PAM), which rejoin does not support",
        "give pam unix_socket",
    ];
    donor.is_refused("pam:x", &pam).context("PAM")?;
    let locked = ["(4151)", "ALTER USER 'locked'@'localhost' ACCOUNT UNLOCK;"];
    donor.is_refused("locked:x", &locked).context("locked")?;
    donor.sql(&["SET GLOBAL max_connections = 10"])?;
    let held: Vec<_> = std::iter::from_fn(|| donor.fakes.donor().connect().ok()).take(20).collect();
    ensure!(held.len() >= 10, "{} sessions are held", held.len());
    let checked = donor.check()?;
    ensure!(checked.contains("Too many connections (1040)"), "{checked}");
    ensure!(checked.contains("raise max_connections") && !checked.contains("CREATE USER"), "{checked}");
    Ok(())
}

#[test]
fn accounts_of_11_8() -> Result<()> {
    let donor = Donor::of(Some(Installation::mariadb_11_8()?))?;
    donor.sql(&[
        "INSTALL SONAME 'auth_parsec'",
        "CREATE USER sst@localhost IDENTIFIED VIA parsec USING PASSWORD('secret')",
        "GRANT RELOAD, BINLOG MONITOR ON *.* TO sst@localhost",
    ])?;
    donor.logs_in("sst:secret").context("parsec")?;
    // The SQL library panics on an empty password: that is no end of anything but this login.
    donor.is_refused("sst:", &["sst: the SQL library failed during login: "]).context("parsec, no password")
}
