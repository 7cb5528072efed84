//! The joiner's server: who it is, the sessions with it, and what is changed on it for the time of the transfer.
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use formats::mariadb::sql_text::name;
use formats::wsrep::address::ListenAddress;
use formats::wsrep::credentials::Account;

use super::account_for;
use super::note::{FOR_THE_TIME, NOTE, Note};
use super::proxy::Proxy;
use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::send::throttle::Throttle;
use crate::snapshot::declined::Declined;
use crate::snapshot::online::sql_checks::grant_of;
use crate::sql::definitions::Database;
use crate::sql::joining::FILE_EXISTS;
use crate::sql::{ANSWER_WITHIN, Listens, Login, Session, SqlError};
use crate::threads::lock;

/// The port of a server for its clients, if no other is named.
const CLIENT_PORT: u16 = 3306;
/// How long one statement may take: the transfer's own limits end it, by ending its connection.
const STATEMENT_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the server may take to have a position: it writes into its system tables, and asks the provider.
const POSITION_WITHIN: Duration = Duration::from_secs(300);
/// `wsrep_local_state` of a server that has no part in the group's order yet, and of one that waits for a state.
const WAITING: [i64; 2] = [0, 1];
/// What the account must be allowed to do there, each for everything.
const PRIVILEGES: [&str; 11] =
    ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "RELOAD", "SUPER", "FILE"];
/// ER_PARSE_ERROR.
const NOT_UNDERSTOOD: u16 = 1064;

/// The joiner's server.
pub(super) struct Joiner<'a> {
    /// The transfer.
    pub job: &'a Job,
    at: (String, u16),
    proxy: Proxy,
    throttle: Arc<Throttle>,
    login: Login,
    idle: Mutex<Vec<Session>>,
    /// Its version.
    pub version: String,
    /// Its `lower_case_table_names`.
    pub lower_case_table_names: u8,
    /// Its datadir, on its host.
    pub datadir: PathBuf,
    /// It writes a binary log.
    pub log_bin: bool,
    /// An earlier transfer ended while it replaced the old data.
    pub was_replaced: bool,
    /// Its GTIDs are those of the group.
    gtid_mode: bool,
    /// Its files are in this directory only, if it has such a limit.
    secure_file_priv: String,
    /// Its `wsrep_gcomm_uuid`.
    member: String,
    /// Settings as they were.
    before: Vec<(&'static str, String)>,
}

impl<'a> Joiner<'a> {
    /// Logs in to the server at the address that our server gave us, and makes sure that it waits for the state of the server of
    /// `donor`. `throttle` limits what it gets.
    ///
    /// # Errors
    /// It is not reached, lets us not in, or is another server.
    pub fn find(
        job: &'a Job,
        donor: &Login,
        account: Option<&Account>,
        throttle: &Arc<Throttle>,
    ) -> Result<Joiner<'a>> {
        let address = address(job)?;
        let proxy = proxy_to(&address, job, throttle, &job.cancel)?;
        job.progress.count(proxy.counter());
        let account = account_for(&proxy.server(), account)?;
        let at = Listens::Proxied { socket: proxy.socket(), server: proxy.server() };
        let login = Login { at, account: Some(account) };
        let mut joiner = Joiner {
            job,
            at: address,
            proxy,
            throttle: Arc::clone(throttle),
            login,
            idle: Mutex::default(),
            version: String::new(),
            lower_case_table_names: 0,
            datadir: PathBuf::new(),
            log_bin: false,
            was_replaced: false,
            gtid_mode: false,
            secure_file_priv: String::new(),
            member: String::new(),
            before: Vec::new(),
        };
        let mut session = joiner.enter()?;
        let encrypted = if joiner.proxy.is_encrypted() { "with TLS" } else { "without TLS: it offers none" };
        tracing::info!("logged in to {} {encrypted}", joiner.name());
        joiner.is_the_one(&mut session, donor)?;
        joiner.read_settings(&mut session)?;
        joiner.read_note(&mut session)?;
        job.progress.ledger.connected(&joiner.proxy.server(), &format!("MariaDB {}", joiner.version));
        joiner.loads(&mut session)?;
        joiner.give_back(session);
        Ok(joiner)
    }

    /// The server in words.
    pub fn name(&self) -> String {
        format!("the joiner's server at {}", self.proxy.server())
    }

    /// Bytes that it got.
    pub fn sent(&self) -> u64 {
        self.proxy.sent()
    }

    /// A session whose statements stay on that server.
    pub fn session(&self) -> Result<Session> {
        self.job.cancel.check()?;
        let idle = lock(&self.idle).pop();
        match idle {
            Some(session) => Ok(session),
            None => {
                let mut session = self.enter()?;
                self.loads(&mut session)?;
                Ok(session)
            }
        }
    }

    fn loads(&self, session: &mut Session) -> Result<(), Failure> {
        session.set_loading().map_err(|e| self.refused("a session that loads", &e))
    }

    /// Keeps a session whose last statement succeeded for the next one who needs one.
    pub fn give_back(&self, session: Session) {
        lock(&self.idle).push(session);
    }

    /// Opens so many sessions. Later, accounts may be others.
    pub fn open_sessions(&self, count: usize) -> Result<()> {
        let opened = (0..count).map(|_| self.session()).collect::<Result<Vec<_>>>()?;
        lock(&self.idle).extend(opened);
        Ok(())
    }

    fn enter(&self) -> Result<Session> {
        let entered = self.enter_by(&self.proxy, &self.login, STATEMENT_WITHIN);
        // A transfer that is over has ended its connections: the server said nothing.
        entered.map_err(|failure| self.job.cancel.check().err().unwrap_or(failure).into())
    }

    /// Another proxy to the server.
    pub fn proxy_to_it(&self, cancel: &Cancel) -> Result<Proxy> {
        proxy_to(&self.at, self.job, &self.throttle, cancel)
    }

    /// Bytes that it may get in a second, as that is now.
    pub fn rlimit(&self) -> Option<u64> {
        self.throttle.rate()
    }

    /// The account with which the server is entered.
    pub fn account(&self) -> Option<Account> {
        self.login.account.clone()
    }

    /// Logs in.
    ///
    /// # Errors
    /// The server is not reached, or lets us not in.
    pub fn enter_by(&self, proxy: &Proxy, login: &Login, patience: Duration) -> Result<Session, Failure> {
        let mut session = Session::open(login, patience).map_err(|refused| {
            // What happened on the way counts before what our client made of it.
            proxy.why().unwrap_or_else(|| {
                let text = format!("no login to {}: {}", self.name(), refused.answers);
                let hint = "wsrep_sst_auth of the donor must be an account that may log in to the joiner's server from the donor's host";
                Failure::new(Kind::Refused, text).hint(refused.advice.map_or_else(
                    || hint.to_owned(),
                    |advice| format!("{advice}; {hint}"),
                ))
            })
        })?;
        session.stay_local().map_err(|e| match e.is_denied() {
            true => self.lacks(&mut session, &["SUPER"]),
            false => self.refused("SET SESSION wsrep_on=OFF", &e),
        })?;
        Ok(session)
    }

    /// A failure of the server to take something; of the connection, if that is why.
    pub fn refused(&self, what: &str, error: &SqlError) -> Failure {
        if let Err(cancelled) = self.job.cancel.check() {
            return cancelled;
        }
        if error.is_lost() {
            let why = self.proxy.why().unwrap_or_else(|| Failure::new(Kind::Peer, error.to_string()));
            return Failure::new(
                why.kind,
                format!("{} was lost while it processed {what}: {why}", self.name()),
            )
            .hint("its error log says why if it has ended");
        }
        Failure::new(Kind::Refused, format!("{} refused {what}: {error}", self.name()))
            .hint("change it on the donor, or give the joiner the donor's settings and version")
    }

    /// It must be a server that waits for a state of this group, and not the donor's: its data will be replaced.
    fn is_the_one(&mut self, session: &mut Session, donor: &Login) -> Result<()> {
        let ask = |session: &mut Session, name: &str| {
            session.status(name).map_err(|e| self.refused("a query", &e)).map(Option::unwrap_or_default)
        };
        let server = |e: SqlError| Failure::new(Kind::Server, e.to_string());
        let mut here = Session::open(donor, ANSWER_WITHIN)
            .map_err(|e| Failure::new(Kind::Configuration, e.to_string()))?;
        let own = here.status("wsrep_gcomm_uuid").map_err(server)?.unwrap_or_default();
        let members = here.members().map_err(server)?;
        if members.is_empty() && !here.reads_everything().map_err(server)? {
            let grant = grant_of(&here.current_user().map_err(server)?, &["SELECT"]);
            return Err(super::failed(Declined::MissingPrivilege { grant }.into()));
        }
        let state: Option<i64> = ask(session, "wsrep_local_state")?.parse().ok();
        // Its `wsrep_cluster_state_uuid` is still that of the data which it has.
        let member = ask(session, "wsrep_gcomm_uuid")?;
        let why = if member == own && !own.is_empty() {
            "it is the donor's own".to_owned()
        } else if !state.is_some_and(|state| WAITING.contains(&state)) {
            let comment = ask(session, "wsrep_local_state_comment")?;
            format!("it is not waiting for a state transfer (wsrep_local_state_comment is {comment:?})")
        } else if !members.is_empty() && !members.iter().any(|(uuid, ..)| *uuid == member) {
            format!("it is no member of this group (wsrep_gcomm_uuid is {member:?})")
        } else {
            self.member = member;
            return Ok(());
        };
        let text = format!(
            "the server at {} is not the joiner: {why}; nothing there was changed",
            self.proxy.server()
        );
        Err(Failure::new(Kind::Refused, text)
            .hint("see wsrep_node_address, wsrep_sst_receive_address and port of the joiner")
            .into())
    }

    fn read_settings(&mut self, session: &mut Session) -> Result<()> {
        let all = session.variables().map_err(|e| self.refused("a query", &e))?;
        let get = |name: &str| all.get(name).cloned().unwrap_or_default();
        self.version = get("version");
        self.lower_case_table_names = get("lower_case_table_names").parse().unwrap_or(0);
        self.datadir = PathBuf::from(get("datadir"));
        self.log_bin = get("log_bin") == "ON";
        self.gtid_mode = get("wsrep_gtid_mode") == "ON";
        let changed = FOR_THE_TIME.iter().filter_map(|(name, wanted)| {
            let value = get(name);
            (!value.is_empty() && value != *wanted && value != "DISABLED").then_some((*name, value))
        });
        self.before = changed.collect();
        self.secure_file_priv = get("secure_file_priv");
        Ok(())
    }

    /// What an earlier transfer has left.
    fn read_note(&mut self, session: &mut Session) -> Result<()> {
        let all = session.databases().map_err(|e| self.refused("a query", &e))?;
        let Some(left) = all.iter().find(|database| database.name == NOTE) else { return Ok(()) };
        let note = Note::read(&left.comment);
        self.was_replaced = note.replacing;
        // Of a server that was started since, these are its options'.
        if note.member == self.member {
            let known = |(name, _): &(&str, String)| !self.before.iter().any(|(known, _)| known == name);
            let unknown: Vec<_> = note.before.into_iter().filter(known).collect();
            self.before.extend(unknown);
        }
        Ok(())
    }

    /// Leaves on the server what the next transfer must know if this one is killed. `replacing`: from now on the old data is replaced.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn leave_note(&self, session: &mut Session, replacing: bool) -> Result<()> {
        let note = Note {
            member: self.member.clone(),
            before: self.before.clone(),
            replacing: replacing || self.was_replaced,
        };
        let database = Database {
            name: NOTE.to_owned(),
            character_set: "utf8mb4".to_owned(),
            collation: "utf8mb4_general_ci".to_owned(),
            comment: note.text(),
        };
        let left = session.create_database(NOTE).and_then(|()| session.alter_database(&database));
        match left {
            // Databases have no comments before 10.5.
            Err(e) if e.code == NOT_UNDERSTOOD => Ok(()),
            left => left.map_err(|e| self.refused("a database for a note", &e).into()),
        }
    }

    /// What the server and the account may do is checked before anything is done.
    ///
    /// # Errors
    /// Something that is needed may not be done.
    pub fn check_rights(&self, session: &mut Session) -> Result<()> {
        let files = &self.secure_file_priv;
        if !files.is_empty() && !self.datadir.starts_with(Path::new(files)) {
            let text = format!(
                "{} cannot write files into its datadir, where views and triggers are kept (secure_file_priv={files})",
                self.name()
            );
            return Err(Failure::new(Kind::Refused, text)
                .hint("remove secure_file_priv from its option file until the transfer is over")
                .into());
        }
        let question = |e: &SqlError| self.refused("a query", e);
        let account = session.current_user().map_err(|e| question(&e))?;
        let has = session.privileges(&account).map_err(|e| question(&e))?;
        let missing: Vec<&str> =
            PRIVILEGES.iter().copied().filter(|needed| !has.iter().any(|has| has == needed)).collect();
        if !missing.is_empty() {
            return Err(self.lacks(session, &missing).into());
        }
        // A directory is a file that exists.
        match session.write_file(&self.datadir, b"") {
            Err(e) if e.code != FILE_EXISTS => Err(self.refused("files of views and triggers", &e).into()),
            _ => Ok(()),
        }
    }

    fn lacks(&self, session: &mut Session, missing: &[&str]) -> Failure {
        let account = session.current_user().unwrap_or_default();
        let (user, host) = account.rsplit_once('@').unwrap_or((&account, "%"));
        let text = format!("the account {account} of {} lacks {}", self.name(), missing.join(", "));
        Failure::new(Kind::Configuration, text).hint(format!(
            "GRANT {} ON *.* TO {}@{};",
            missing.join(", "),
            name(user),
            name(host)
        ))
    }

    /// Changes settings of the whole server for the time of the transfer.
    pub fn prepare(&self, session: &mut Session) -> Result<()> {
        for (variable, wanted) in FOR_THE_TIME {
            if self.before.iter().any(|(changed, _)| *changed == variable) {
                session
                    .set_global(variable, wanted)
                    .map_err(|e| self.refused(&format!("{variable}={wanted}"), &e))?;
            }
        }
        Ok(())
    }

    /// Puts them back.
    pub fn put_back(&self, session: &mut Session) {
        for (variable, value) in &self.before {
            if let Err(error) = session.set_global(variable, value) {
                tracing::warn!("{variable} of {} stays changed, it was {value}: {error}", self.name());
            }
        }
    }

    /// Ends the server's wait: its data is at this position.
    pub fn starts_at(&self, position: &str) -> Result<()> {
        let mut session = self.session()?;
        if let Some(domain) = self.job.args.gtid_domain_id.filter(|_| self.gtid_mode) {
            session
                .set_global_number("wsrep_gtid_domain_id", domain.into())
                .map_err(|e| self.refused("the GTID domain of the group", &e))?;
        }
        let _limit = self.job.cancel.after(
            crate::threads::Thread::TimeLimit,
            POSITION_WITHIN,
            format!("{} did not take its position within {} s", self.name(), POSITION_WITHIN.as_secs()),
        )?;
        session
            .set_start_position(position)
            .map_err(|e| self.refused(&format!("the position {position}"), &e))?;
        drop(session);
        match self.session() {
            Ok(mut session) => self.put_back(&mut session),
            Err(error) => {
                let changed = self.before.iter().map(|(variable, value)| format!("{variable} was {value}"));
                let changed = changed.collect::<Vec<_>>().join(", ");
                tracing::warn!("settings of {} stay changed ({changed}): {error:#}", self.name());
            }
        }
        Ok(())
    }
}

fn proxy_to(
    (host, port): &(String, u16),
    job: &Job,
    throttle: &Arc<Throttle>,
    cancel: &Cancel,
) -> Result<Proxy> {
    let settings = &job.settings;
    Proxy::to(host, *port, settings.certificates.donor.as_ref(), settings.stall, Arc::clone(throttle), cancel)
}

/// Host and port of the server, as ours passed them: in one argument, or, an older one, in two.
fn address(job: &Job) -> Result<(String, u16), Failure> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let Some(text) = given(&job.args.address).or_else(|| given(&job.args.host)) else {
        return Err(Failure::new(Kind::Configuration, "the server passed no --address of the joiner"));
    };
    let at = ListenAddress::parse(&text)
        .map_err(|e| Failure::new(Kind::Configuration, format!("the joiner's address {text:?}: {e}")))?;
    Ok((at.host, at.port.or(job.args.port).filter(|port| *port != 0).unwrap_or(CLIENT_PORT)))
}
