//! What the documents and units have a reader type is what the program takes: its own definition reads every command line, the
//! options and targets that they name exist, and the manifests of docs/kubernetes.md agree with themselves and with the image.
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use clap::Command;
use rejoin_cli::operator;
use serde_json::Value;

const REJOIN: &str = env!("CARGO_BIN_EXE_rejoin");

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn files_of(dir: &str, ending: &str) -> Vec<String> {
    let names = fs::read_dir(root().join(dir)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(ending)).map(|name| format!("{dir}/{name}")).collect()
}

/// What a reader is shown, with the paths.
fn documents() -> Vec<(String, String)> {
    let mut paths = files_of("docs", ".md");
    paths.extend(["README.md", "SECURITY.md"].map(str::to_owned));
    paths.into_iter().map(|path| (path.clone(), text(&path))).collect()
}

/// The blocks of code in a document.
fn blocks(document: &str) -> Vec<&str> {
    let blocks = document.split("\n```").skip(1).step_by(2);
    blocks.map(|block| block.split_once('\n').map_or("", |(_, rest)| rest)).collect()
}

/// The code within its sentences and tables.
fn spans(document: &str) -> Vec<&str> {
    let prose = document.split("\n```").step_by(2);
    prose.flat_map(|part| part.lines().flat_map(|line| line.split('`').skip(1).step_by(2))).collect()
}

/// The command lines of a program in a line of code: what a shell would run.
fn commands<'a>(line: &'a str, program: &str) -> Vec<Vec<&'a str>> {
    let line = line.split(" #").next().unwrap_or_default();
    let pieces = line.split(['|', '&', ';', '<', '>', '\'', '"', '`']);
    let words = pieces.map(|piece| {
        let words = piece.split_whitespace().skip_while(|word| ["$", "sudo"].contains(word));
        words.collect::<Vec<_>>()
    });
    let is_it = |word: &str| word == program || word.ends_with(&format!("/{program}"));
    words.filter(|words| words.first().is_some_and(|word| is_it(word))).collect()
}

fn parse(words: &[&str]) -> Result<(), String> {
    operator::command().try_get_matches_from(words).map(drop).map_err(|error| format!("{words:?}: {error}"))
}

/// Fails if a synopsis names a verb or an option that the program does not have. What it leaves out is not missed.
fn check_synopsis(synopsis: &str) -> Result<(), String> {
    let mut program = operator::command();
    program.build();
    let wrong = |word: &str| Err(format!("`{synopsis}`: {word}"));
    let plain = synopsis.replace("\\|", " ").replace(['[', ']', '|'], " ").replace("...", " ");
    // The command whose subcommands may follow, and those of them that were named.
    let (mut at, mut named) = (&program, vec![&program]);
    for word in plain.split_whitespace().skip(1) {
        let has = |found: &dyn Fn(&clap::Arg) -> bool| named.iter().any(|c| c.get_arguments().any(found));
        if let Some(long) = word.strip_prefix("--") {
            let long = long.split('=').next();
            if !has(&|arg| arg.get_long() == long) {
                return wrong(word);
            }
        } else if let Some(short) = word.strip_prefix('-') {
            if !has(&|arg| arg.get_short() == short.chars().next()) {
                return wrong(word);
            }
        } else if let Some(verb) = at.find_subcommand(word) {
            named.retain(|command| !std::ptr::eq(*command, at));
            named.push(verb);
            at = if verb.has_subcommands() { verb } else { at };
        } else if std::ptr::eq(named[0], &program) {
            return wrong(word);
        }
    }
    Ok(())
}

#[test]
fn the_program_takes_every_command_line_of_the_documents() {
    let (mut wrong, mut lines, mut synopses) = (Vec::new(), 0, 0);
    for (path, document) in documents() {
        let mut note =
            |outcome: Result<(), String>| wrong.extend(outcome.err().map(|why| format!("{path}: {why}")));
        for words in
            blocks(&document).iter().flat_map(|block| block.lines()).flat_map(|l| commands(l, "rejoin"))
        {
            lines += 1;
            note(parse(&words));
        }
        for span in spans(&document).into_iter().filter(|span| span.starts_with("rejoin ")) {
            synopses += 1;
            note(check_synopsis(span));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(lines > 20 && synopses > 100, "{lines} lines, {synopses} synopses");
    assert_eq!(
        commands("$ a || sudo /usr/bin/rejoin check -q # -x", "rejoin"),
        [["/usr/bin/rejoin", "check", "-q"]]
    );
    assert!(
        parse(&["rejoin", "status", "--wach"]).is_err()
            && parse(&["rejoin", "metrics", "--textfile"]).is_err()
    );
    for wrong in
        ["rejoin status [--wach]", "rejoin watch", "rejoin check [-z]", "rejoin gcache size [--list]"]
    {
        assert!(check_synopsis(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_program_takes_the_examples_of_its_own_help() {
    let mut waiting: Vec<Command> = vec![operator::command()];
    let mut examples = 0;
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands().cloned());
        let Some(help) = command.get_after_long_help() else { continue };
        for words in help.to_string().lines().flat_map(|line| commands(line, "rejoin")) {
            examples += 1;
            parse(&words).unwrap();
        }
    }
    assert!(examples > 12, "{examples}");
}

#[test]
fn the_program_takes_the_command_lines_of_the_units() {
    let mut lines = 0;
    for path in files_of("packaging/systemd", ".service") {
        let mut unit = text(&path);
        let set = unit
            .lines()
            .filter_map(|line| line.strip_prefix("Environment="))
            .map(|line| line.trim_matches('"'));
        let set: Vec<(String, String)> = set
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        for (name, value) in set {
            unit = unit.replace(&format!("${{{name}}}"), &value).replace(&format!("${name}"), &value);
        }
        for line in unit.lines().filter_map(|line| line.strip_prefix("ExecStart=")) {
            lines += 1;
            parse(&line.split_whitespace().collect::<Vec<_>>()).unwrap_or_else(|why| panic!("{path}: {why}"));
        }
    }
    assert_eq!(lines, files_of("packaging/systemd", ".service").len());
}

/// The options of which docs/options.md has a row.
fn documented_options() -> BTreeSet<String> {
    let page = text("docs/options.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let mut names = BTreeSet::new();
    for row in rows {
        let spans: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        // `ssl-server-ca`, `-capath`: the end of another name.
        let begin = spans.first().and_then(|first| first.rsplit_once('-')).map_or("", |(begin, _)| begin);
        names.extend(spans.iter().map(|span| match span.starts_with('-') {
            true => format!("{begin}{span}"),
            false => (*span).to_owned(),
        }));
    }
    names
}

#[test]
fn options_and_targets_that_the_documents_show_exist() {
    let options = documented_options();
    assert!(options.contains("rlimit") && options.contains("ssl-server-key"), "{options:?}");
    let makefile = text("Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '#', '.']))
        .filter_map(|line| line.split_once(':').filter(|(_, rest)| !rest.starts_with('=')))
        .flat_map(|(names, _)| names.split_whitespace())
        .collect();
    let (mut shown, mut made) = (0, 0);
    for (path, document) in documents() {
        for block in blocks(&document) {
            let group =
                block.lines().skip_while(|line| *line != "[sst]").skip(1).take_while(|l| !l.starts_with('['));
            for line in group.filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
                let name = line.split(['=', ' ']).next().unwrap().replace('_', "-");
                assert!(options.contains(&name), "{path}: {line}");
                shown += 1;
            }
        }
        let lines = blocks(&document).into_iter().flat_map(str::lines);
        for words in lines.chain(spans(&document)).flat_map(|line| commands(line, "make")) {
            let target = words[1..].iter().find(|word| !word.contains('=')).unwrap_or(&"all");
            assert!(targets.contains(target), "{path}: {words:?}");
            made += 1;
        }
    }
    assert!(shown > 5 && made > 10, "{shown} options, {made} targets");
}

/// The manifests of docs/kubernetes.md: blocks that begin with a key.
fn manifests() -> Vec<Value> {
    let page = text("docs/kubernetes.md");
    let is_key =
        |line: &str| line.split_once(':').is_some_and(|(key, _)| key.chars().all(char::is_alphabetic));
    let manifests = blocks(&page).into_iter().filter(|block| block.lines().next().is_some_and(is_key));
    manifests
        .map(|block| serde_norway::from_str(block).unwrap_or_else(|error| panic!("{error}:\n{block}")))
        .collect()
}

fn items<'a>(of: &'a Value, key: &str) -> Vec<&'a Value> {
    of[key].as_array().map(|items| items.iter().collect()).unwrap_or_default()
}

fn string<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_else(|| panic!("no {key} in {of:#}"))
}

#[test]
fn manifests_agree_with_themselves_and_with_the_program() {
    // What the image has: the Containerfile says so, and scripts/image.sh runs it.
    let container = text("Containerfile");
    assert!(
        container.contains("COPY ${PROGRAM} /rejoin\n") && container.contains("ENTRYPOINT [\"/rejoin\"]")
    );
    let copied = tempfile::tempdir().unwrap();
    let (mut mounts, mut programs, mut served) = (0, 0, 0);
    for manifest in manifests() {
        let volumes: BTreeSet<&str> =
            items(&manifest, "volumes").into_iter().map(|v| string(v, "name")).collect();
        for begins in items(&manifest, "initContainers") {
            let args: Vec<&str> =
                items(begins, "args").into_iter().map(|word| word.as_str().unwrap()).collect();
            parse(&[&["/rejoin"], &args[..]].concat()).unwrap();
            assert_eq!(args, ["copy-to", string(items(begins, "volumeMounts")[0], "mountPath")]);
            let ran =
                std::process::Command::new(REJOIN).args(["copy-to"]).arg(copied.path()).status().unwrap();
            assert!(ran.success());
            programs += 1;
        }
        for container in items(&manifest, "containers").into_iter().chain(items(&manifest, "initContainers"))
        {
            let args = items(container, "args").into_iter().map(|word| word.as_str().unwrap());
            let words: Vec<&str> = std::iter::once("/rejoin").chain(args).collect();
            if words.len() > 1 {
                parse(&words).unwrap();
                served += usize::from(words[1] == "serve");
            }
            for mount in items(container, "volumeMounts") {
                assert!(volumes.contains(string(mount, "name")), "{mount:#}");
                mounts += 1;
                if mount["subPath"].is_null() {
                    continue;
                }
                // The same name in the image and in the directory that `copy-to` has filled.
                assert_eq!(string(mount, "subPath"), "rejoin");
                let name = string(mount, "mountPath").strip_prefix("/usr/bin/").unwrap();
                assert!(
                    name == "rejoin" || name.starts_with("wsrep_sst_"),
                    "{name} is no name of the program"
                );
            }
        }
    }
    assert_eq!((mounts, programs, served), (6, 1, 1));
    let mode = fs::metadata(copied.path().join("rejoin")).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{mode:o}");
    // Probes are command lines, which another test reads; here only that there are some.
    let manifests = manifests();
    let probes: Vec<&Value> = manifests
        .iter()
        .map(|manifest| &manifest["livenessProbe"])
        .filter(|probe| !probe.is_null())
        .collect();
    assert_eq!(probes.len(), 1);
    assert!(probes[0]["exec"]["command"].is_array());
    assert!(probes[0]["timeoutSeconds"].as_u64() > Some(5), "one second is too short in a busy container");
    let page = text("docs/kubernetes.md");
    let tags = page.split("rejoin:").skip(1).map(|rest| rest.split([' ', '}', '\n']).next().unwrap());
    let tags: BTreeSet<&str> = tags.filter(|tag| !tag.is_empty()).collect();
    assert_eq!(tags, [env!("CARGO_PKG_VERSION")].into());
}

/// What an administrator types for the donor's account is one statement, and the page that explains it names each right.
#[test]
fn the_documents_grant_the_same_rights() {
    let statement = |path: &str| -> String {
        let document = text(path);
        let found =
            document.lines().find(|line| line.starts_with("GRANT ") && line.contains("'mysql'@'localhost'"));
        found.unwrap_or_else(|| panic!("{path} has no GRANT")).to_owned()
    };
    let granted = statement("README.md");
    let install = text("docs/install.md");
    let account = install.split_once("## The donor's account").unwrap().1.split("\n## ").next().unwrap();
    for path in ["docs/install.md", "docs/options.md"] {
        assert_eq!(statement(path), granted, "{path}");
    }
    let rights = granted.strip_prefix("GRANT ").unwrap().split(" ON ").next().unwrap();
    assert!(rights.contains("SELECT"), "{rights}");
    let rows: Vec<&str> = account.lines().filter(|line| line.starts_with("| ")).collect();
    for right in rights.split(", ") {
        let named = format!("`{right}`");
        let row = |row: &&&str| row.split(" | ").next().is_some_and(|first| first.contains(&named));
        assert!(rows.iter().find(row).is_some(), "docs/install.md does not say what {right} is for");
    }
}
