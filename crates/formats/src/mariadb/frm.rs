//! `.frm` files: which storage engine holds a table.
//!
//! Layout from sql/table.cc, sql/unireg.cc and sql/handler.h (MariaDB 10.11), compared with files that
//! 10.11.19 created for every engine it ships.
//!
//! Not every table has such a file: the definition of ARCHIVE, S3 and PERFORMANCE_SCHEMA tables is stored
//! elsewhere (ARCHIVE: inside the `.ARZ`), and a `.frm` appears only once a server has opened the table.

use thiserror::Error;

use crate::bytes::{array, le16, le32};

/// The engine in a `.frm` file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Engine {
    /// InnoDB.
    InnoDb,
    /// Aria.
    Aria,
    /// MyISAM.
    MyIsam,
    /// MERGE over MyISAM tables.
    Merge,
    /// MEMORY: no files except the definition.
    Memory,
    /// CSV.
    Csv,
    /// ARCHIVE.
    Archive,
    /// BLACKHOLE: no files except the definition.
    Blackhole,
    /// FEDERATED or FEDERATEDX: rows are elsewhere.
    Federated,
    /// PERFORMANCE_SCHEMA.
    PerformanceSchema,
    /// RocksDB.
    RocksDb,
    /// S3: rows are in an object store.
    S3,
    /// Another engine, by the stored name in upper case; or `#N` if only the number is known.
    Other(String),
    /// Partitioned: the engine of the parts, if it can be determined.
    Partition {
        /// The parts' engine.
        of: Option<Box<Engine>>,
    },
    /// `CREATE SEQUENCE`: one row in a table of an engine.
    Sequence {
        /// The engine.
        of: Box<Engine>,
    },
    /// A view: no rows.
    View,
}

/// Why a file is not a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrmError {
    /// Fewer bytes than the fixed header.
    #[error("the definition is truncated: {0} bytes")]
    Short(usize),
    /// Neither a table nor a view.
    #[error("not a table definition")]
    Magic,
}

const HEADER: usize = 64;

impl Engine {
    /// By its name as in `ENGINE=`, in any case.
    pub fn from_name(name: &str) -> Engine {
        match name.to_ascii_uppercase().as_str() {
            "INNODB" => Engine::InnoDb,
            "ARIA" => Engine::Aria,
            "MYISAM" => Engine::MyIsam,
            "MRG_MYISAM" | "MERGE" => Engine::Merge,
            "MEMORY" | "HEAP" => Engine::Memory,
            "CSV" => Engine::Csv,
            "ARCHIVE" => Engine::Archive,
            "BLACKHOLE" => Engine::Blackhole,
            "FEDERATED" => Engine::Federated,
            "PERFORMANCE_SCHEMA" => Engine::PerformanceSchema,
            "ROCKSDB" => Engine::RocksDb,
            "S3" => Engine::S3,
            "PARTITION" => Engine::Partition { of: None },
            other => Engine::Other(other.to_owned()),
        }
    }

    /// By the number in the header (`legacy_db_type`, sql/handler.h). Engines without a fixed number get one
    /// at start-up, which has no meaning outside that server.
    fn from_number(number: u8) -> Engine {
        match number {
            6 => Engine::Memory,
            9 => Engine::MyIsam,
            10 => Engine::Merge,
            12 => Engine::InnoDb,
            16 => Engine::Archive,
            17 => Engine::Csv,
            18 => Engine::Federated,
            19 => Engine::Blackhole,
            20 => Engine::Partition { of: None },
            28 => Engine::PerformanceSchema,
            42 => Engine::Aria,
            other => Engine::Other(format!("#{other}")),
        }
    }
}

/// Returns the engine of the table that `frm`, a whole definition file, defines.
///
/// # Errors
/// Truncated, or not a definition.
pub fn engine(frm: &[u8]) -> Result<Engine, FrmError> {
    if frm.starts_with(b"TYPE=VIEW\n") {
        return Ok(Engine::View);
    }
    if frm.get(..2).is_some_and(|magic| magic != [0xfe, 1]) {
        return Err(FrmError::Magic);
    }
    let header = frm.get(..HEADER).ok_or(FrmError::Short(frm.len()))?;
    let byte = |at| array::<1>(header, at).map_or(0, |[byte]| byte);
    let named = extra_engine_name(frm).map(|name| Engine::from_name(&name));
    let engine = match named.unwrap_or_else(|| Engine::from_number(byte(3))) {
        Engine::Partition { .. } => Engine::Partition { of: part_engine(frm, byte(61)).map(Box::new) },
        engine => engine,
    };
    Ok(if is_sequence(header) { Engine::Sequence { of: Box::new(engine) } } else { engine })
}

/// Byte 39 holds three settings of two bits each (0 unset, 1 no, 2 yes): transactional, page checksum,
/// sequence.
fn is_sequence(header: &[u8]) -> bool {
    array::<1>(header, 39).is_some_and(|[choices]| (choices >> 4) & 3 == 2)
}

/// The engine's name in the segment after the default row: connect string, then name, each with a u16 length.
fn extra_engine_name(frm: &[u8]) -> Option<String> {
    if le32(frm, 55)? == 0 {
        return None;
    }
    // Start of the key block, its length (in 32 bits if 16 do not suffice), and the length of the default
    // row.
    let keys = usize::from(le16(frm, 6)?);
    let key_len = match le16(frm, 14)? {
        0xffff => usize::try_from(le32(frm, 47)?).ok()?,
        short => usize::from(short),
    };
    let segment = keys.checked_add(key_len)?.checked_add(usize::from(le16(frm, 16)?))?;
    let connect = usize::from(le16(frm, segment)?);
    let name_at = segment.checked_add(2)?.checked_add(connect)?;
    let name_len = usize::from(le16(frm, name_at)?);
    let name = frm.get(name_at.checked_add(2)?..)?.get(..name_len)?;
    let printable = !name.is_empty() && name.iter().all(|b| b.is_ascii_graphic());
    printable.then(|| String::from_utf8_lossy(name).into_owned())
}

/// The parts' engine: its name in the tagged segment behind the header (tag 1), otherwise its number at byte
/// 61.
fn part_engine(frm: &[u8], number: u8) -> Option<Engine> {
    tagged(frm, 1).map(|name| Engine::from_name(&String::from_utf8_lossy(name))).or_else(|| {
        // 0 is "unknown"; partitions cannot be nested.
        Some(Engine::from_number(number)).filter(|e| number != 0 && !matches!(e, Engine::Partition { .. }))
    })
}

/// A value of the tagged segment: u8 tag, u8 length (0: u16 follows), bytes. The segment is at 64, its length
/// at 4; files of old servers have a `/` there instead.
fn tagged(frm: &[u8], wanted: u8) -> Option<&[u8]> {
    let len = usize::from(le16(frm, 4)?);
    let mut rest = frm.get(HEADER..)?.get(..len)?;
    if rest.first() == Some(&b'/') {
        return None;
    }
    while let [tag, short, tail @ ..] = rest {
        let (len, tail) = match (*short, tail) {
            (0, [low, high, tail @ ..]) => (usize::from(u16::from_le_bytes([*low, *high])), tail),
            (short, tail) => (usize::from(short), tail),
        };
        let (value, next) = tail.split_at_checked(len)?;
        if *tag == wanted {
            return Some(value);
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::put;
    use proptest::prelude::*;

    /// A definition with the parts read here: `tags` behind the header, then keys, default row, extra segment.
    fn frm(number: u8, part: u8, sequence: u8, tags: &[u8], connect: &str, name: &str) -> Vec<u8> {
        let (keys, row) = (30usize, 9usize);
        let mut out = vec![0; HEADER];
        out[0] = 0xfe;
        out[1] = 1;
        out[3] = number;
        out[39] = sequence << 4;
        out[61] = part;
        let key_start = HEADER + tags.len();
        put(&mut out, 4, &(tags.len() as u16).to_le_bytes());
        put(&mut out, 6, &(key_start as u16).to_le_bytes());
        put(&mut out, 14, &(keys as u16).to_le_bytes());
        put(&mut out, 16, &(row as u16).to_le_bytes());
        put(&mut out, 55, &1u32.to_le_bytes());
        out.extend(tags);
        out.extend(vec![0xee; keys + row]);
        for text in [connect, name] {
            out.extend((text.len() as u16).to_le_bytes());
            out.extend(text.as_bytes());
        }
        out
    }

    #[test]
    fn the_name_counts_more_than_the_number() {
        assert_eq!(engine(&frm(45, 0, 0, &[], "s/t", "ROCKSDB")), Ok(Engine::RocksDb));
        assert_eq!(engine(&frm(51, 0, 0, &[], "", "CONNECT")), Ok(Engine::Other("CONNECT".into())));
        let mut old = frm(9, 0, 0, &[], "", "");
        put(&mut old, 55, &[0; 4]);
        assert_eq!(engine(&old), Ok(Engine::MyIsam));
        old[3] = 77;
        assert_eq!(engine(&old), Ok(Engine::Other("#77".into())));
    }

    #[test]
    fn parts_by_tag_then_by_number() {
        let of = |engine| Ok(Engine::Partition { of: Some(Box::new(engine)) });
        let tags = b"\x00\x02xx\x80\x00\x03\x00yyy\x01\x04Aria";
        assert_eq!(engine(&frm(20, 12, 0, tags, "", "partition")), of(Engine::Aria));
        assert_eq!(engine(&frm(20, 12, 0, b"\x00\x02xx", "", "partition")), of(Engine::InnoDb));
        assert_eq!(engine(&frm(20, 12, 0, b"/old", "", "partition")), of(Engine::InnoDb));
        assert_eq!(engine(&frm(20, 0, 0, &[], "", "partition")), Ok(Engine::Partition { of: None }));
    }

    #[test]
    fn sequences_views_and_what_is_neither() {
        let sequence = engine(&frm(12, 0, 2, &[], "", "InnoDB"));
        assert_eq!(sequence, Ok(Engine::Sequence { of: Box::new(Engine::InnoDb) }));
        assert_eq!(engine(b"TYPE=VIEW\nquery=..."), Ok(Engine::View));
        assert_eq!(engine(b"TYPE=TRIGGERS\n"), Err(FrmError::Magic));
        assert_eq!(engine(&[0xfe, 1, 9]), Err(FrmError::Short(3)));
        assert_eq!(engine(b""), Err(FrmError::Short(0)));
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, tags: Vec<u8>, at in 0usize..120, byte: u8) {
            let _ = engine(&bytes);
            let mut file = frm(20, 12, 0, &tags, "", "partition");
            let _ = engine(&file);
            if let Some(slot) = file.get_mut(at) {
                *slot = byte;
            }
            let _ = engine(&file);
        }
    }
}
