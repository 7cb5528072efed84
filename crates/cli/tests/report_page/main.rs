//! `rejoin report` in a real browser: what a reader sees of records, at two widths, light and dark.
//!
//! To look at the page: `REPORT_PAGE=/tmp/report.html cargo test -p rejoin-cli --test report_page`, then open that file.
mod records;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use records::{HOSTILE, HOSTILE_REASON, others, shape};
use report::Record;
use serde_json::Value;
use tempfile::TempDir;

const REJOIN: &str = env!("CARGO_BIN_EXE_rejoin");
/// As Debian and others name it.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const WITHIN: Duration = Duration::from_secs(120);

/// Asks about the page in the frame, in the page's own terms.
const QUESTIONS: &str = r##"
const frame = document.querySelector("iframe"), doc = frame.contentDocument;
const all = (what) => [...doc.querySelectorAll(what)];
const texts = (what) => all(what).map((e) => e.textContent.trim());
const color = (what, of) => frame.contentWindow.getComputedStyle(doc.querySelector(what))[of];
const root = doc.documentElement;
all("details").forEach((e) => { e.open = true; });
const inFlow = (e) => !e.closest(".scroll, .hidden, svg, .labels");
const wide = all("body *").filter((e) => inFlow(e) && e.getBoundingClientRect().right > root.clientWidth + 1);
document.querySelector("#answer").textContent = JSON.stringify({
  width: root.clientWidth, scrolls: root.scrollWidth > root.clientWidth,
  wide: wide.map((e) => e.tagName + "." + e.className),
  cut: all(".scroll").filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.querySelector("table").className + e.textContent.slice(0, 40)),
  titles: texts(".transfer h2"), badges: texts(".overview .badge"), why: texts(".why"), reasons: texts(".reason"),
  lanes: all(".lane:not(.rate)").length, rates: all(".rate .area").length, waits: all("rect.wait > title").map((e) => e.textContent),
  pauses: all("rect.pause > title").map((e) => e.textContent),
  names: texts(".tables .name"), untitled: all("svg rect").filter((e) => !e.querySelector("title")).length,
  unlabelled: all("svg").filter((e) => !e.getAttribute("aria-label") && !e.getAttribute("aria-hidden")).length,
  headless: all("table").filter((e) => !e.querySelector("thead th[scope=col]") || !e.querySelector("th[scope=row]")).length,
  plan: texts(".plan table"), over: all(".over").length, hosts: texts(".hosts caption"),
  alien: all("script, link, img, iframe, object, [src], [href]:not([href^='#']), [onload], [onerror]").length,
  page: color("body", "backgroundColor"), ink: color("body", "color"), small: all("body *").filter((e) =>
    e.childNodes.length === 1 && e.firstChild.nodeType === 3 && parseFloat(frame.contentWindow.getComputedStyle(e).fontSize) < 11).length,
});
"##;

fn browser(profile: &Path) -> Command {
    let found = |name: &&&str| {
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let name = BROWSERS
        .iter()
        .find(found)
        .expect("no browser is installed (scripts/install-deps.sh installs chromium)");
    let mut command = Command::new(name);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    command
}

/// Runs a program that ends by itself, and ends it if it does not.
fn output(mut command: Command) -> Output {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (sender, ended) = std::sync::mpsc::channel();
    let id = child.id();
    let took = Instant::now();
    let mut out = child.stdout.take().unwrap();
    let mut err = child.stderr.take().unwrap();
    #[allow(clippy::disallowed_methods, reason = "a test may start threads as it likes")]
    let reader = std::thread::spawn(move || {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        std::io::Read::read_to_end(&mut out, &mut stdout).unwrap();
        std::io::Read::read_to_end(&mut err, &mut stderr).unwrap();
        let _ = sender.send(());
        (stdout, stderr)
    });
    if ended.recv_timeout(WITHIN).is_err() {
        child.kill().unwrap();
        panic!("process {id} has not ended after {:?}: {command:?}", took.elapsed());
    }
    let (stdout, stderr) = reader.join().unwrap();
    Output { status: child.wait().unwrap(), stdout, stderr }
}

/// What the browser answers about a page in a window of this width.
fn ask(dir: &Path, page: &str, width: u32, dark: bool) -> Value {
    let escaped = page.replace('&', "&amp;").replace('"', "&quot;");
    let harness = dir.join("harness.html");
    let html = format!(
        "<!DOCTYPE html><meta charset=utf-8><body style=\"margin:0\"><iframe width={width} height=900 style=\"border:0\" \
         srcdoc=\"{escaped}\"></iframe><pre id=answer>none</pre><script>onload = () => {{ {QUESTIONS} }};</script>"
    );
    fs::write(&harness, html).unwrap();
    let mut command = browser(&dir.join("profile"));
    // 0 is dark and 1 is light.
    command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
    command.args(["--virtual-time-budget=4000", "--dump-dom"]).arg(format!("file://{}", harness.display()));
    let output = output(command);
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = dom.rsplit_once("<pre id=\"answer\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let text =
        answer.unwrap_or_else(|| panic!("no answer in {dom}\n{}", String::from_utf8_lossy(&output.stderr))).0;
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn write(dir: &Path, record: &Record) {
    fs::create_dir_all(dir).unwrap();
    let name = format!("rejoin-{}-{}-7.json", record.role, record.began_ms);
    fs::write(dir.join(name), record.to_text()).unwrap();
}

/// The records of two nodes, each in a directory of its own.
fn two_nodes() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for number in 1..=4 {
        write(&dir.path().join("n2"), &shape(number).joiner());
        write(&dir.path().join("n1"), &shape(number).donor());
    }
    others().iter().for_each(|record| write(&dir.path().join("n2"), record));
    dir
}

fn report(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(REJOIN).current_dir(dir).arg("report").args(arguments).output().unwrap()
}

fn list(answer: &Value, of: &str) -> Vec<String> {
    answer[of].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_browser_shows_why_the_second_transfer_was_slower() {
    let dir = two_nodes();
    fs::write(dir.path().join("n1/rejoin-donor-torn.json"), "{\"schema\":1,").unwrap();
    let made = report(dir.path(), &["-o", "page.html", "n1", "n2"]);
    assert!(made.status.success() && made.stdout.is_empty(), "{made:?}");
    assert!(
        String::from_utf8_lossy(&made.stderr).contains("rejoin-donor-torn.json is not shown: not the record"),
        "{made:?}"
    );
    let page = fs::read_to_string(dir.path().join("page.html")).unwrap();
    if let Some(path) = std::env::var_os("REPORT_PAGE") {
        fs::write(path, &page).unwrap();
    }
    let mut colours = Vec::new();
    for (width, dark) in [(1280, false), (1280, true), (400, false), (400, true)] {
        let answer = ask(dir.path(), &page, width, dark);
        check_content(&answer);
        assert_eq!(answer["scrolls"], false, "at {width}: {}", answer["wide"]);
        assert!(list(&answer, "wide").is_empty(), "at {width}: {}", answer["wide"]);
        // Where there is room no table needs to be scrolled.
        assert!(width < 1000 || list(&answer, "cut").is_empty(), "at {width}: {}", answer["cut"]);
        colours.push((answer["page"].clone(), answer["ink"].clone()));
    }
    assert_eq!((&colours[0], &colours[1]), (&colours[2], &colours[3]));
    assert!(colours[0].0 != colours[1].0 && colours[0].1 != colours[1].1, "dark is not light: {colours:?}");
}

fn check_content(answer: &Value) {
    let pair = |number: u32| format!("#{number} n2 from n1");
    assert_eq!(list(answer, "titles"), (1..=6).map(pair).collect::<Vec<_>>());
    let badges = ["✓ succeeded", "✓ succeeded", "✓ succeeded", "✗ failed", "✓ succeeded", "? no outcome"];
    assert_eq!(list(answer, "badges"), badges);
    let why = list(answer, "why");
    let second = "20.7 s slower than #1: comparing and sending took 21.0 s instead of 2.4 s, because 1.2 GiB were sent instead of \
                  64.0 MiB (plan: full, 1.2 GiB to send: none of 96 sampled blocks matches).";
    assert_eq!(why[1], second);
    assert!(
        why[2].contains("waiting for a lock or the server took 31.4 s instead of 0.0 s: ")
            && why[2].contains("session 41"),
        "{why:?}"
    );
    assert!(why[3].starts_with("Failed on the donor after ") && why[3].ends_with(HOSTILE_REASON), "{why:?}");
    assert!(why[4].contains("IST followed"), "{why:?}");
    assert!(why[5].starts_with("No outcome is recorded"), "{why:?}");
    // Both hosts of four transfers, and the joiner of two.
    assert_eq!(answer["lanes"], 10);
    assert_eq!(answer["rates"], 5);
    assert_eq!(list(answer, "pauses"), vec!["replication: 18.8 ms"; 4]);
    assert!(list(answer, "waits").iter().any(|wait| wait.contains("session 41")), "{}", answer["waits"]);
    let reasons = list(answer, "reasons");
    assert_eq!(reasons[0], format!("donor n1: {HOSTILE_REASON}"));
    assert_eq!(reasons[1], format!("joiner n2: the donor gave up: {HOSTILE_REASON}"));
    // The text is there as text, and as nothing else.
    assert_eq!(list(answer, "names").iter().filter(|name| *name == HOSTILE).count(), 5);
    assert_eq!(answer["alien"], 0);
    assert_eq!(
        (&answer["untitled"], &answer["unlabelled"], &answer["headless"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert!(list(answer, "plan")[0].contains("40.0 MiB to 70.0 MiB"), "{}", answer["plan"]);
    assert!(
        list(answer, "hosts")[0].contains("The donor's clock was 3.2 s behind the joiner's"),
        "{}",
        answer["hosts"]
    );
    assert_eq!(answer["small"], 0, "text smaller than 11 px");
}

#[test]
fn what_is_given_is_shown_and_nothing_else() {
    let dir = two_nodes();
    let last = report(dir.path(), &["--last", "2", "n2"]);
    let page = String::from_utf8(last.stdout).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"), "{page}");
    assert!(page.contains("2 transfers, recorded on n2") && !page.contains("#3 "), "{page}");
    let missing = "Of 2 transfers the donor's record is not here, which may say more: <code>rejoin-donor-*.json</code> in the \
                   datadir of n1.";
    assert!(page.contains(missing) && !page.contains("the joiner's record"), "{page}");
    // One host's record alone, by its name.
    let joiner = shape(1).joiner();
    let name = format!("n2/rejoin-joiner-{}-7.json", joiner.began_ms);
    let one = String::from_utf8(report(dir.path(), &[&name]).stdout).unwrap();
    assert!(one.contains("1 transfer, recorded on n2") && one.contains("#1 n2 from n1"), "{one}");
    fs::create_dir(dir.path().join("empty")).unwrap();
    for (places, why) in
        [(vec!["empty"], "no record of a transfer in empty (hint: "), (vec!["nowhere", "n1"], "nowhere")]
    {
        let refused = report(dir.path(), &places);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && refused.stdout.is_empty() && text.contains(why), "{text}");
    }
}
