//! The answer of `SHOW CREATE TABLE`, taken apart as far as loading rows needs it; [`super::deferred`] has what is made after them.
//!
//! From sql/sql_show.cc (`show_create_table_ex`, MariaDB 10.11): every column, key and constraint has a line of its own that
//! begins with two spaces and ends with a comma, except the last; a line feed inside a text is written `\n`. The text is
//! bytes, because a default can be of any character set.

/// Where `text` begins outside of quoted names and texts.
pub(super) fn outside_quotes(line: &[u8], text: &[u8]) -> Option<usize> {
    let mut quote = None;
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        match quote {
            None if line.get(at..)?.starts_with(text) => return Some(at),
            None if matches!(byte, b'`' | b'\'') => quote = Some(*byte),
            // A quote that is doubled closes and opens again.
            Some(open) if open == *byte => quote = None,
            Some(b'\'') if *byte == b'\\' => at += 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The answer as that of another server is compared with it: without the next value of the counter, which each node counts by itself,
/// and without the comment on temporal columns that are stored as before 10.1. No server makes such columns anew.
pub fn comparable(create: &[u8]) -> Vec<u8> {
    const STORED: &[u8] = b" /* mariadb-5.3 */";
    let create = without_counter(create);
    let lines = create.split(|byte| *byte == b'\n').map(|line| {
        match outside_quotes(line, STORED).filter(|_| line.starts_with(b"  `")) {
            Some(at) => [line.get(..at), line.get(at + STORED.len()..)]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .concat(),
            None => line.to_vec(),
        }
    });
    lines.collect::<Vec<_>>().join(&b'\n')
}

/// Whether a table has several partitions for rows that were valid before, and the server fills one after the other
/// (`PARTITION BY SYSTEM_TIME LIMIT`). Nothing in such a row says in which of them it is.
pub fn has_history_in_turn(create: &[u8]) -> bool {
    let tail = create.windows(3).rposition(|window| window == b"\n) ").and_then(|at| create.get(at..));
    let tail = tail.unwrap_or_default();
    let Some(at) = outside_quotes(tail, b"PARTITION BY SYSTEM_TIME LIMIT ") else { return false };
    let mut lines = tail.get(at..).unwrap_or_default().split(|byte| *byte == b'\n');
    // The server adds more of them by itself, or their number is written instead of them.
    let adds = lines.next().is_some_and(|line| outside_quotes(line, b" AUTO").is_some());
    let number = lines.clone().find_map(|line| line.trim_ascii_start().strip_prefix(b"PARTITIONS "));
    let number = number.and_then(|number| std::str::from_utf8(number.trim_ascii()).ok()?.parse().ok());
    // The last one is for rows that are valid.
    let named = lines.filter(|line| outside_quotes(line, b" HISTORY").is_some()).count();
    adds || named.max(number.map_or(0, |number: usize| number.saturating_sub(1))) > 1
}

/// The answer without the next value of the counter.
fn without_counter(create: &[u8]) -> Vec<u8> {
    const COUNTER: &[u8] = b" AUTO_INCREMENT=";
    let options = create.windows(3).rposition(|window| window == b"\n) ").unwrap_or(0);
    let (body, options) = create.split_at(options);
    let Some(at) = options.windows(COUNTER.len()).position(|window| window == COUNTER) else {
        return create.to_vec();
    };
    let (before, after) = options.split_at(at);
    let digits = after.iter().skip(COUNTER.len()).take_while(|byte| byte.is_ascii_digit()).count();
    [body, before, after.get(COUNTER.len() + digits..).unwrap_or_default()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &str = "CREATE TABLE `t` (\n  `id` int(11) NOT NULL AUTO_INCREMENT,\n  `a` int(11) DEFAULT NULL,\n  \
                         `b` varchar(9) DEFAULT 'x\\n  KEY `no`',\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u` (`b`),\n  \
                         KEY `a` (`a`),\n  KEY `ab` (`a`,`b`(3))\n) ENGINE=InnoDB AUTO_INCREMENT=17 DEFAULT CHARSET=latin1";

    #[test]
    fn the_counter_is_left_out_of_a_comparison() {
        let without = String::from_utf8(without_counter(TABLE.as_bytes())).unwrap();
        assert!(without.ends_with(") ENGINE=InnoDB DEFAULT CHARSET=latin1"), "{without}");
        assert!(without.contains("NOT NULL AUTO_INCREMENT,"));
        assert_eq!(without_counter(b"a AUTO_INCREMENT=x"), b"ax");
        assert_eq!(without_counter(b""), b"");
    }

    #[test]
    fn how_old_columns_are_stored_is_left_out_of_a_comparison() {
        let of = |old: &str| {
            format!(
                "CREATE TABLE `t` (\n  `a` datetime{old} DEFAULT NULL COMMENT ' /* mariadb-5.3 */',\n  `b` timestamp(3){old} NOT NULL\n) ENGINE=MyISAM"
            )
        };
        assert_eq!(comparable(of(" /* mariadb-5.3 */").as_bytes()), of("").as_bytes());
        assert_eq!(comparable(of("").as_bytes()), of("").as_bytes());
    }

    #[test]
    fn history_that_fills_partitions_in_turn_is_known() {
        let of = |partitions: &str| {
            let create = format!(
                "CREATE TABLE `t` (\n  `a` int(11) DEFAULT NULL\n) ENGINE=InnoDB DEFAULT CHARSET=latin1 WITH SYSTEM VERSIONING\n {partitions}"
            );
            has_history_in_turn(create.as_bytes())
        };
        let (one, two) = (
            "(PARTITION `p HISTORY` HISTORY ENGINE = InnoDB,\n",
            " PARTITION `p1` HISTORY ENGINE = InnoDB,\n",
        );
        let now = " PARTITION `pn` CURRENT ENGINE = InnoDB)";
        assert!(of(&format!("PARTITION BY SYSTEM_TIME LIMIT 9 \n{one}{two}{now}")));
        assert!(of("PARTITION BY SYSTEM_TIME LIMIT 9 \nPARTITIONS 3"));
        assert!(of("PARTITION BY SYSTEM_TIME LIMIT 9 AUTO\nPARTITIONS 2"));
        assert!(!of(&format!("PARTITION BY SYSTEM_TIME LIMIT 9 \n{one}{now}")));
        assert!(!of("PARTITION BY SYSTEM_TIME LIMIT 9 \nPARTITIONS 2"));
        assert!(!of(&format!(
            "PARTITION BY SYSTEM_TIME INTERVAL 1 DAY STARTS TIMESTAMP'2026-01-01 00:00:00'\n{one}{two}{now}"
        )));
        assert!(!of("PARTITION BY HASH (`a`)\nPARTITIONS 4") && !of(""));
    }

    proptest! {
        #[test]
        fn never_panics(text in prop::collection::vec(prop::sample::select(b"\n) ,`KEYAUTO_INCREMENT=1x'\\\\DFLCSR".to_vec()), 0..80)) {
            let _ = comparable(&text);
            let _ = has_history_in_turn(&text);
        }
    }
}
