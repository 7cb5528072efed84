use super::*;
use proptest::prelude::*;
use std::process::Command;

/// A directory of option files, and a process environment that refers to no other place.
struct Files {
    dir: tempfile::TempDir,
}

fn no_env(_: &str) -> Option<String> {
    None
}

impl Files {
    fn new(files: &[(&str, &str)]) -> Files {
        let dir = tempfile::tempdir().unwrap();
        let files_dir = Files { dir };
        for (name, text) in files {
            let path = files_dir.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text.replace("DIR", files_dir.dir.path().to_str().unwrap())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        files_dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn args(&self) -> SstArgs {
        SstArgs {
            defaults_file: Some(self.path("my.cnf").to_str().unwrap().to_owned()),
            ..SstArgs::default()
        }
    }

    fn load(&self, args: &SstArgs) -> ServerOptions {
        ServerOptions::load_in(args, Some((10, 11)), &Surroundings { env: no_env, etc: Vec::new() }).unwrap()
    }

    /// Returns what the installed server's `my_print_defaults` reads from the same files: `--name` or
    /// `--name=value`.
    fn theirs(&self, options: &[&str], groups: &[&str]) -> Vec<String> {
        let out = Command::new("my_print_defaults")
            .arg(format!("--defaults-file={}", self.path("my.cnf").display()))
            .args(options)
            .args(groups)
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
    }
}

/// Formats our options the same way. Names are normalised on our side only, so both pass through the same
/// function.
fn ours(options: &ServerOptions, group: &str) -> Vec<String> {
    let entries = options.set.entries().iter().filter(|entry| entry.group == group);
    entries
        .map(|entry| match &entry.value {
            None => format!("--{}", entry.name),
            Some(value) => format!("--{}={value}", entry.name),
        })
        .collect()
}

fn normal(lines: Vec<String>) -> Vec<String> {
    let mut set = OptionSet::default();
    for line in &lines {
        let body = line.strip_prefix("--").unwrap_or(line);
        let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        set.push(SERVER, name, value);
    }
    ours(&ServerOptions { set, ..ServerOptions::default() }, SERVER)
}

fn agree(files: &Files, suffix: Option<&str>) {
    let args = SstArgs { defaults_group_suffix: suffix.map(str::to_owned), ..files.args() };
    let loaded = files.load(&args);
    let suffix = suffix.map(|s| format!("--defaults-group-suffix={s}"));
    let extra: Vec<&str> = suffix.iter().map(String::as_str).collect();
    let server = [&extra[..], &["--mysqld"]].concat();
    // A value may contain a line break, which the server's tool prints unchanged, so the comparison is by
    // line. A value may end in a carriage return, which then counts as part of the line break, also after the
    // last one.
    let printed = |words: Vec<String>| words.iter().map(|word| format!("{word}\n")).collect::<String>();
    let lines = |words: Vec<String>| normal(printed(words).lines().map(str::to_owned).collect());
    assert_eq!(lines(ours(&loaded, SERVER)), normal(files.theirs(&server, &[])), "server groups");
    assert_eq!(lines(ours(&loaded, SST)), normal(files.theirs(&extra, &["sst"])), "[sst]");
}

#[test]
fn groups_suffixes_and_the_last_setting() {
    let files = Files::new(&[(
        "my.cnf",
        "[mysqld]\ninnodb_page_size=4k\n[mysqld.1]\ninnodb-page-size=8k\n[sst]\nrlimit=1m\n[sst.1]\nrlimit=2M\n\
         [client]\nport=1\n[mariadb-10.11]\nlog_bin=a\n[mariadb-10.6]\nlog_bin=b\n[galera]\nloose-x=1\n[server.1]\nserver_id=7\n\
         [client-server]\nsocket=/s\n[mysqld.2]\ninnodb_page_size=64k\n[mysqld-10.11.1]\nrelay-log=r\n",
    )]);
    agree(&files, None);
    agree(&files, Some(".1"));
    let plain = files.load(&files.args());
    assert_eq!((plain.server("innodb_page_size"), plain.sst("rlimit")), (Some("4k"), Some("1m")));
    assert_eq!(
        (plain.server("log-bin"), plain.server("x"), plain.server("server-id")),
        (Some("a"), Some("1"), None)
    );
    let first = files.load(&SstArgs { defaults_group_suffix: Some(".1".into()), ..files.args() });
    assert_eq!(
        (first.server_size("innodb-page-size").unwrap(), first.sst_size("rlimit").unwrap()),
        (Some(8192), Some(2 << 20))
    );
    assert_eq!(first.server("relay-log"), Some("r"));
}

#[test]
fn includes_are_read_where_they_stand() {
    let files = Files::new(&[
        ("my.cnf", "[mysqld]\r\na=1\r\n!include DIR/one.cnf\r\n!includedir DIR/conf.d\r\nz=9\r\n"),
        ("one.cnf", "[mysqld]\na=2\n[sst]\ncpat=.*\\.x\n"),
        ("conf.d/20.cnf", "[mysqld]\nb=20\n"),
        ("conf.d/10.cnf", "[mysqld]\nb=10\nc = 'quoted # value' # comment\n"),
        ("conf.d/30.ini", "[mysqld]\nb=30\n"),
        ("conf.d/40.cnf.off", "[mysqld]\nb=40\n"),
        ("conf.d/.cnf", "[mysqld]\nhidden=1\n"),
    ]);
    agree(&files, None);
    let loaded = files.load(&files.args());
    assert_eq!(
        (loaded.server("a"), loaded.server("b"), loaded.server("z")),
        (Some("2"), Some("20"), Some("9"))
    );
    assert_eq!(loaded.files().len(), 5);
    assert!(loaded.warnings().is_empty(), "{:?}", loaded.warnings());
}

#[test]
fn an_include_loop_ends() {
    let files = Files::new(&[("my.cnf", "[mysqld]\nn=1\n!include DIR/my.cnf\n")]);
    agree(&files, None);
    let loaded = files.load(&files.args());
    assert!(loaded.warnings().iter().any(|w| w.contains("nested too deep")), "{:?}", loaded.warnings());
    assert_eq!(loaded.server("n"), Some("1"));
}

#[test]
fn a_directory_that_includes_itself_three_times_ends() {
    let each = "[mysqld]\n!includedir DIR/d\n";
    let files = Files::new(&[("my.cnf", each), ("d/a.cnf", each), ("d/b.cnf", each), ("d/c.cnf", each)]);
    let loaded = files.load(&files.args());
    assert_eq!(loaded.files().len(), FILES_MAX);
    assert!(loaded.warnings().len() < 2 * FILES_MAX);
}

#[test]
fn bad_lines_and_files_are_warnings() {
    let files = Files::new(&[
        (
            "my.cnf",
            "[mysqld]\na=1\n!include DIR/bad.cnf\n!include DIR/none.cnf\n!include DIR/open.cnf\nb=2\n",
        ),
        ("bad.cnf", "[mysqld]\nc=3\n[broken\nd=4\n"),
        ("open.cnf", "[mysqld]\ne=5\n"),
    ]);
    fs::set_permissions(files.path("open.cnf"), fs::Permissions::from_mode(0o666)).unwrap();
    agree(&files, None);
    let loaded = files.load(&files.args());
    assert_eq!((loaded.server("c"), loaded.server("d"), loaded.server("e")), (Some("3"), None, None));
    assert_eq!(loaded.server("b"), Some("2"));
    let text = loaded.warnings().join("\n");
    for part in ["bad.cnf:3: group name", "none.cnf cannot be read", "open.cnf is world-writable"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    let files = Files::new(&[]);
    let error = ServerOptions::load(&files.args()).unwrap_err();
    assert!(
        error.to_string().contains("--defaults-file=") && error.to_string().contains("my.cnf"),
        "{error}"
    );
    assert_eq!(crate::failure::kind_of(&error), Kind::Configuration);
}

/// The standard option files of the machine that runs the tests, whatever they contain.
#[test]
fn the_files_of_this_host() {
    let loaded = ServerOptions::load(&SstArgs::default()).unwrap();
    for (extra, group) in [("--mysqld", SERVER), ("sst", SST)] {
        let out = Command::new("my_print_defaults").arg(extra).output().unwrap();
        let theirs = String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect();
        let environment = std::env::var("INNODB_DATA_HOME_DIR").is_ok();
        assert!(environment || ours(&loaded, group) == normal(theirs), "{group}: {:?}", loaded.files());
    }
}

#[test]
fn standard_places_in_their_order() {
    let files = Files::new(&[
        ("etc/my.cnf", "[mysqld]\na=etc\nb=etc\nc=etc\nd=etc\n"),
        ("home2/my.cnf", "[mysqld]\nb=home2\n"),
        ("extra.cnf", "[mysqld]\nb=extra\nc=extra\n"),
    ]);
    let around =
        Surroundings { env: no_env, etc: vec![files.path("etc"), files.path("home2"), files.path("absent")] };
    let extra = files.path("extra.cnf").to_str().unwrap().to_owned();
    let args = SstArgs { defaults_extra_file: Some(extra), ..SstArgs::default() };
    let loaded = ServerOptions::load_in(&args, None, &around).unwrap();
    assert_eq!(["a", "b", "c", "d"].map(|n| loaded.server(n).unwrap()), ["etc", "extra", "extra", "etc"]);
    let none = SstArgs { mysqld_args: vec!["--no-defaults".into(), "--a=argv".into()], ..args };
    let loaded = ServerOptions::load_in(&none, None, &around).unwrap();
    assert_eq!((loaded.server("a"), loaded.server("b")), (Some("argv"), None));
}

#[test]
fn the_command_line_wins_and_what_the_server_passed_wins_over_that() {
    let files = Files::new(&[(
        "my.cnf",
        "[mysqld]\ninnodb_undo_directory=/file\nlog-bin=file\nlog_bin_index=i\nport=1\n",
    )]);
    let mut args = files.args();
    args.mysqld_args = ["--innodb-undo-directory", "/argv", "--log_bin=argv", "--skip-name-resolve"]
        .map(str::to_owned)
        .to_vec();
    args.binlog = Some("direct".to_owned());
    let loaded = files.load(&args);
    assert_eq!(loaded.server("innodb_undo_directory"), Some("/argv"));
    assert_eq!((loaded.server("log-bin"), loaded.server("log-bin-index")), (Some("direct"), Some("i")));
    assert_eq!(loaded.server("port"), Some("1"));
    args.mysqld_args = vec!["--skip-log-bin".to_owned()];
    args.binlog = None;
    assert_eq!(files.load(&args).server("log-bin"), Some("0"));
}

#[test]
fn the_data_home_of_the_environment() {
    let cases = [
        ("[mysqld]\n", "./", None),
        ("[mysqld]\ninnodb_data_home_dir=\n", "./", Some("")),
        ("[mysqld]\ninnodb_data_home_dir=/file\n", "/running", Some("/running")),
        ("[mysqld]\ninnodb_data_home_dir=/file\n", "./", Some("./")),
        ("[mysqld]\n", "/running", Some("/running")),
    ];
    for (text, env, want) in cases {
        let files = Files::new(&[("my.cnf", text)]);
        let mut loaded = files.load(&files.args());
        loaded.overlay_environment(Some(env.to_owned()));
        assert_eq!(loaded.server("innodb-data-home-dir"), want, "{text:?} {env}");
    }
}

#[test]
fn typed_values_name_the_option() {
    let files = Files::new(&[(
        "my.cnf",
        "[sst]\nrlimit=fast\nincremental\nsst-initial-timeout=30\nidle=5m\nskip-engines=rocksdb, Mroonga\n",
    )]);
    let loaded = files.load(&files.args());
    assert_eq!(
        loaded.sst_size("rlimit").unwrap_err().to_string(),
        "[sst] rlimit=\"fast\" is not a size such as 16M"
    );
    assert_eq!(loaded.sst_bool("incremental").unwrap(), Some(true));
    assert_eq!(loaded.sst_duration_s("sst-initial-timeout").unwrap(), Some(30));
    assert!(loaded.sst_duration_s("idle").is_err());
    assert_eq!(loaded.sst_size("absent").unwrap(), None);
    assert_eq!(loaded.sst_names("skip-engines"), ["MROONGA", "ROCKSDB"].map(str::to_owned).into());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Option files as people and programs write them give the same result as the server's own tool.
    #[test]
    fn any_file_reads_as_the_server_reads_it(
        lines in prop::collection::vec(line(), 0..25),
        included in prop::collection::vec(line(), 0..8),
    ) {
        // An include in an included file multiplies; it has its own tests.
        let included: Vec<_> = included.into_iter().filter(|line| !line.starts_with('!')).collect();
        let main = format!("[mysqld]\n{}\n", lines.join("\n"));
        let other = format!("[sst]\n{}", included.join("\r\n"));
        let files = Files::new(&[("my.cnf", &main), ("inc/x.cnf", &other), ("y.cnf", &other)]);
        agree(&files, Some("_n1"));
    }
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z_-]{0,8}",
        "[a-z][a-z_-]{0,8} ?= ?[a-zA-Z0-9/.: ]{0,12}",
        "[a-c]=(\"[a-z #]{0,6}\"|'[a-z #]{0,6}')( #.{0,4})?",
        "[a-c]=[a-z\\\\\"' ]{0,8}",
        Just("[mysqld]".to_owned()),
        Just("[sst]".to_owned()),
        Just("[mariadb_n1]".to_owned()),
        Just("[mysqld-10.11]".to_owned()),
        Just("[other] trailing".to_owned()),
        Just("!includedir DIR/inc".to_owned()),
        Just("!include DIR/y.cnf".to_owned()),
        Just("# comment".to_owned()),
        Just("  ; comment".to_owned()),
        Just(String::new()),
    ]
}
