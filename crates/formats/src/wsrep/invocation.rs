//! The command line with which a server starts its SST program.
//!
//! From sql/wsrep_sst.cc (MariaDB 10.11 and 11.8), from scripts/wsrep_sst_common.sh (10.11, which also
//! accepts options of older servers and other forks) and from captured command lines. The list of options
//! grows with server versions, so unknown options are collected and never an error.

/// What the server wants from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// This node is to receive a state.
    Joiner,
    /// This node is to send its state.
    Donor,
}

/// The server's arguments, one field each; `None` or empty if the server did not pass it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SstArgs {
    /// `--role`; `None` when absent or not one of the two words.
    pub role: Option<Role>,
    /// `--address`: where to listen (joiner), or what the joiner printed after `ready ` and its last `@` (donor).
    pub address: Option<String>,
    /// `--datadir`, usually with a `/` at its end.
    pub datadir: Option<String>,
    /// `--defaults-file` the server was started with.
    pub defaults_file: Option<String>,
    /// `--defaults-extra-file` the server was started with.
    pub defaults_extra_file: Option<String>,
    /// `--defaults-group-suffix` the server was started with.
    pub defaults_group_suffix: Option<String>,
    /// `--parent`: process id of the joiner's server.
    pub parent: Option<u32>,
    /// `--progress 1`: the server wants `total` and `complete` lines.
    pub progress: bool,
    /// `--binlog`: base name of the binary logs as configured, may be relative.
    pub binlog: Option<String>,
    /// `--binlog-index`: name of the binary logs' index as configured.
    pub binlog_index: Option<String>,
    /// `--local-port`: TCP port of the donor's server.
    pub local_port: Option<u16>,
    /// `--socket`: Unix socket of the donor's server.
    pub socket: Option<String>,
    /// `--gtid`: the donor's position, or with `bypass` the joiner's own.
    pub gtid: Option<String>,
    /// `--gtid-domain-id`.
    pub gtid_domain_id: Option<u32>,
    /// `--bypass`: the joiner gets only write-sets; send no data.
    pub bypass: bool,
    /// `--auth`, `user:password` (older servers).
    pub auth: Option<String>,
    /// `--user` (older servers).
    pub user: Option<String>,
    /// `--password` (older servers).
    pub password: Option<String>,
    /// `--host` (older servers).
    pub host: Option<String>,
    /// `--port` (older servers).
    pub port: Option<u16>,
    /// `--aria-log-dir-path`.
    pub aria_log_dir_path: Option<String>,
    /// `--innodb-data-home-dir`.
    pub innodb_data_home_dir: Option<String>,
    /// `--innodb-log-group-home-dir`.
    pub innodb_log_group_home_dir: Option<String>,
    /// `--innodb-undo-directory`.
    pub innodb_undo_directory: Option<String>,
    /// `--innodb-buffer-pool-filename`.
    pub innodb_buffer_pool_filename: Option<String>,
    /// `--innodb-buffer-pool-size`.
    pub innodb_buffer_pool_size: Option<String>,
    /// `--log-basename`.
    pub log_basename: Option<String>,
    /// Everything after `--mysqld-args`: the server's own arguments.
    pub mysqld_args: Vec<String>,
    /// Unknown words, in order: options, the value following each, other words.
    pub unknown: Vec<String>,
}

impl SstArgs {
    /// Parses `argv` without the program's name. In any order, `--option value` and `--option=value`; the
    /// last setting of an option counts. An option whose value is missing (the next word starts with `--`, or
    /// there is none) and an invalid number are left unset. Nothing is an error.
    pub fn parse(argv: &[String]) -> SstArgs {
        let mut args = SstArgs::default();
        let mut words = argv.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            if word == "--mysqld-args" {
                args.mysqld_args = words.map(str::to_owned).collect();
                return args;
            }
            let (name, attached) = match word.strip_prefix("--").map(|body| body.split_once('=')) {
                None => {
                    args.unknown.push(word.to_owned());
                    continue;
                }
                Some(Some((name, value))) => (name, Some(value)),
                Some(None) => (word.trim_start_matches("--"), None),
            };
            if name == "bypass" {
                args.bypass = attached.is_none_or(|value| value != "0");
                continue;
            }
            let value = attached.or_else(|| words.next_if(|next| !next.starts_with("--")));
            if !args.set(name, value) {
                args.unknown.push(word.to_owned());
                if attached.is_none() {
                    args.unknown.extend(value.map(str::to_owned));
                }
            }
        }
        args
    }

    /// The role; donor if none was given: MariaDB 10.11 starts the mysqldump method's donor without `--role`,
    /// and wsrep_sst_common does the same.
    pub fn effective_role(&self) -> Role {
        self.role.unwrap_or(Role::Donor)
    }

    /// Value of the last `--NAME=VALUE` (or `--NAME VALUE`) among the server's own arguments; `-` and `_` in
    /// names are equal. `Some("")` if the option has no value.
    pub fn mysqld_option(&self, name: &str) -> Option<&str> {
        let same = |word: &str| {
            word.len() == name.len()
                && word.bytes().zip(name.bytes()).all(|(a, b)| fold_dash(a) == fold_dash(b))
        };
        let mut found = None;
        let mut words = self.mysqld_args.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            let Some(body) = word.strip_prefix("--") else { continue };
            match body.split_once('=') {
                Some((key, value)) if same(key) => found = Some(value),
                None if same(body) => {
                    found = Some(words.next_if(|next| !next.starts_with('-')).unwrap_or_default());
                }
                _ => {}
            }
        }
        found
    }

    /// Stores one known option; false if the name is unknown.
    fn set(&mut self, name: &str, value: Option<&str>) -> bool {
        let text = value.map(str::to_owned);
        let slot = match name {
            "role" => return self.set_role(value),
            "progress" => {
                self.progress = value.is_some_and(|v| v.trim() == "1");
                return true;
            }
            "parent" => return number(&mut self.parent, value),
            "local-port" => return number(&mut self.local_port, value),
            "port" => return number(&mut self.port, value),
            "gtid-domain-id" => return number(&mut self.gtid_domain_id, value),
            "address" => &mut self.address,
            "datadir" => &mut self.datadir,
            "defaults-file" => &mut self.defaults_file,
            "defaults-extra-file" => &mut self.defaults_extra_file,
            "defaults-group-suffix" => &mut self.defaults_group_suffix,
            "binlog" => &mut self.binlog,
            "binlog-index" => &mut self.binlog_index,
            "socket" => &mut self.socket,
            "gtid" => &mut self.gtid,
            "auth" => &mut self.auth,
            "user" => &mut self.user,
            "password" => &mut self.password,
            "host" => &mut self.host,
            "aria-log-dir-path" => &mut self.aria_log_dir_path,
            "innodb-data-home-dir" => &mut self.innodb_data_home_dir,
            "innodb-log-group-home-dir" => &mut self.innodb_log_group_home_dir,
            "innodb-undo-directory" => &mut self.innodb_undo_directory,
            "innodb-buffer-pool-filename" => &mut self.innodb_buffer_pool_filename,
            "innodb-buffer-pool-size" => &mut self.innodb_buffer_pool_size,
            "log-basename" => &mut self.log_basename,
            _ => return false,
        };
        if text.is_some() {
            *slot = text;
        }
        true
    }

    /// An unknown role is left unset, so that a role of a later server is not mistaken for one of the two.
    fn set_role(&mut self, value: Option<&str>) -> bool {
        match value {
            Some("joiner") => self.role = Some(Role::Joiner),
            Some("donor") => self.role = Some(Role::Donor),
            _ => return value.is_none(),
        }
        true
    }
}

fn fold_dash(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte }
}

/// Stores a number if it is valid; the option counts as known either way.
fn number<T: std::str::FromStr>(slot: &mut Option<T>, value: Option<&str>) -> bool {
    if let Some(parsed) = value.and_then(|v| v.trim().parse().ok()) {
        *slot = Some(parsed);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn argv(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_joiner_as_the_server_starts_it() {
        let args = SstArgs::parse(&argv(
            "--role joiner --address 127.0.0.1:4224 --datadir /n2/data/ --defaults-file /n2/my.cnf --parent 11978 \
             --progress 0 --binlog mybin --mysqld-args --defaults-file=/n2/my.cnf --wsrep_start_position=u:5",
        ));
        assert_eq!(args.role, Some(Role::Joiner));
        assert_eq!(args.address.as_deref(), Some("127.0.0.1:4224"));
        assert_eq!(args.datadir.as_deref(), Some("/n2/data/"));
        assert_eq!((args.parent, args.progress), (Some(11978), false));
        assert_eq!(args.binlog.as_deref(), Some("mybin"));
        assert_eq!(args.mysqld_args.len(), 2);
        assert_eq!(args.mysqld_option("wsrep-start-position"), Some("u:5"));
        assert!(args.unknown.is_empty());
    }

    #[test]
    fn a_donor_as_the_server_starts_it() {
        let args = SstArgs::parse(&argv(
            "--role donor --address 127.0.0.1:4224/m//1 --local-port 3410 --socket /n1/s.sock --progress 1 \
             --datadir /n1/data/ --gtid 2f0eaefd:3408 --gtid-domain-id 0 --binlog mybin --bypass --mysqld-args",
        ));
        assert_eq!(args.effective_role(), Role::Donor);
        assert_eq!((args.local_port, args.gtid_domain_id), (Some(3410), Some(0)));
        assert!(args.bypass && args.progress);
        assert!(args.mysqld_args.is_empty());
    }

    #[test]
    fn equals_unknown_and_missing() {
        let args = SstArgs::parse(&argv(
            "--new-thing value --other --gtid=a=b stray --datadir --role=observer --port 99999 --future=1 --binlog",
        ));
        assert_eq!(args.gtid.as_deref(), Some("a=b"));
        assert_eq!((args.datadir.as_deref(), args.port, args.binlog.as_deref()), (None, None, None));
        assert_eq!(args.unknown, argv("--new-thing value --other stray --role=observer --future=1"));
        assert_eq!((args.role, args.effective_role()), (None, Role::Donor));
    }

    #[test]
    fn empty_values_are_values_and_the_last_counts() {
        let args = SstArgs::parse(&["--address", "", "--gtid", "a", "--gtid", "b"].map(str::to_owned));
        assert_eq!((args.address.as_deref(), args.gtid.as_deref()), (Some(""), Some("b")));
    }

    #[test]
    fn the_servers_own_arguments() {
        let args =
            SstArgs::parse(&argv("--mysqld-args --log_bin --log-bin=x --port 3306 --socket --console"));
        assert_eq!(args.mysqld_option("log-bin"), Some("x"));
        assert_eq!(args.mysqld_option("port"), Some("3306"));
        assert_eq!(args.mysqld_option("socket"), Some(""));
        assert_eq!(args.mysqld_option("datadir"), None);
    }

    proptest! {
        #[test]
        fn never_panics_and_loses_no_word_of_the_server(
            before in prop::collection::vec("(--)?[a-z-]{0,12}(=.{0,5})?", 0..12),
            after in prop::collection::vec(".{0,12}", 0..6),
        ) {
            let mut words = before.clone();
            words.retain(|w| w != "--mysqld-args");
            words.push("--mysqld-args".into());
            words.extend(after.iter().cloned());
            let args = SstArgs::parse(&words);
            prop_assert_eq!(&args.mysqld_args, &after);
            for word in &args.unknown {
                prop_assert!(words.contains(word));
            }
            let _ = args.mysqld_option("x");
        }
    }
}
