//! The server's command line, words separated by NUL, and its own arguments as options.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::mariadb::option_set::OptionSet;
use rejoin_formats::wsrep::credentials::{Account, DonorStdin};
use rejoin_formats::wsrep::invocation::SstArgs;

fuzz_target!(|data: &[u8]| {
    let _ = DonorStdin::parse(data);
    let text = String::from_utf8_lossy(data);
    let _ = Account::from_pair(&text);
    let argv: Vec<String> = text.split('\0').map(str::to_owned).collect();
    let args = SstArgs::parse(&argv);
    let _ = args.effective_role();
    let _ = args.mysqld_option("wsrep_start_position");
    assert!(args.unknown.len() + args.mysqld_args.len() <= argv.len());
    if let Some(at) = argv.iter().position(|word| word == "--mysqld-args") {
        assert_eq!(args.mysqld_args, argv[at + 1..]);
    }
    let mut set = OptionSet::default();
    set.overlay_argv("mysqld", &args.mysqld_args);
});
