//! `wsrep_provider_options`: `name = value; name = value`.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use formats::galera::gcache;

/// Options by name, of several settings the last.
pub type ProviderOptions = BTreeMap<String, String>;

/// Parses the text from an option file, or as the server shows it (then with every option there is).
pub fn parse(text: &str) -> ProviderOptions {
    let pairs = text.split(';').filter_map(|part| part.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned())).collect()
}

/// A switch as the provider reads it.
pub fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "yes" | "on" | "true" | "1" | "y")
}

/// A size: a number with `K`, `M`, `G` or `T` behind it.
pub fn size(value: &str) -> Option<u64> {
    formats::mariadb::option_file::parse_size(value)
}

/// A period such as `PT5S`, `PT1M30S`, `P1DT2H` or plain seconds; in seconds.
pub fn period_s(value: &str) -> Option<f64> {
    let Some(mut rest) = value.trim().strip_prefix('P') else { return value.trim().parse().ok() };
    let (mut total, mut in_time) = (0.0, false);
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('T') {
            (rest, in_time) = (time, true);
            continue;
        }
        let at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(at);
        let seconds = match (unit.chars().next()?, in_time) {
            ('D', false) => 86_400.0,
            ('H', true) => 3600.0,
            ('M', true) => 60.0,
            ('S', true) => 1.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = unit.get(1..)?;
    }
    Some(total)
}

/// The ring file of the provider's write-set cache; pages lie beside it.
pub fn cache_file(provider: &ProviderOptions, datadir: &Path) -> PathBuf {
    let dir = provider.get("gcache.dir").or_else(|| provider.get("base_dir")).map(PathBuf::from);
    let name = provider.get("gcache.name").map_or(gcache::FILE_NAME, String::as_str);
    // `join` returns an absolute path unchanged.
    datadir.join(dir.unwrap_or_default()).join(name)
}

/// The length of the receive queue at which a donor among so many members makes the others wait; `None` if it never does.
/// Galera's documentation of `gcs.fc_limit`: it is multiplied by the square root of the number of members, unless only one of them
/// is written to.
pub fn queue_limit_of_donor(provider: &ProviderOptions, members: u64) -> Option<u64> {
    let is_set = |name: &str| provider.get(name).is_some_and(|value| is_on(value));
    if !is_set("gcs.sync_donor") {
        return None;
    }
    let limit: f64 = provider.get("gcs.fc_limit")?.parse().ok()?;
    let single = is_set("gcs.fc_single_primary") || is_set("gcs.fc_master_slave");
    let times = if single { 1.0 } else { (members as f64).sqrt() };
    Some((limit * times).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_donor_that_others_wait_for_has_a_limit() {
        let of = |text: &str| queue_limit_of_donor(&parse(text), 3);
        assert_eq!(of("gcs.sync_donor = YES; gcs.fc_limit = 16; gcs.fc_single_primary = no"), Some(28));
        assert_eq!(of("gcs.sync_donor = yes; gcs.fc_limit = 16; gcs.fc_master_slave = yes"), Some(16));
        assert_eq!(of("gcs.sync_donor = no; gcs.fc_limit = 16"), None);
    }

    #[test]
    fn reads_both_forms() {
        let options = parse("gcache.size=32M;gcs.fc_limit = 16; pc.recovery = true; gcs.fc_limit=20;");
        assert_eq!(options.get("gcs.fc_limit").map(String::as_str), Some("20"));
        assert_eq!(options.get("gcache.size").map(String::as_str), Some("32M"));
        assert_eq!(options.len(), 3);
        assert!(is_on("YES") && is_on("1") && !is_on("no"));
    }

    #[test]
    fn the_ring_file_is_where_the_provider_makes_it() {
        let datadir = Path::new("/data");
        for (options, file) in [
            ("", "/data/galera.cache"),
            ("base_dir = /base", "/base/galera.cache"),
            ("gcache.dir=ring; base_dir=/base", "/data/ring/galera.cache"),
            ("gcache.dir=/ring;gcache.name=other.cache", "/ring/other.cache"),
            ("gcache.dir=/ring;gcache.name=/elsewhere/a.cache", "/elsewhere/a.cache"),
        ] {
            assert_eq!(cache_file(&parse(options), datadir), Path::new(file), "{options}");
        }
    }

    #[test]
    fn periods_and_sizes() {
        assert_eq!(period_s("PT5S"), Some(5.0));
        assert_eq!(period_s("PT1M30S"), Some(90.0));
        assert_eq!(period_s("P1DT0.5S"), Some(86_400.5));
        assert_eq!(period_s("12"), Some(12.0));
        for bad in ["PX", "PT5", "P5S", "x"] {
            assert_eq!(period_s(bad), None, "{bad}");
        }
        assert_eq!(size("128M"), Some(128 << 20));
    }
}
